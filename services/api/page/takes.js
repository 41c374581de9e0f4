// The films of this tab's session, newest first: kept in sessionStorage and shown below the stage.

import { openFile } from "./service.js";

const KEPT = 24;
const $ = (id) => document.getElementById(id);
let takes = read();

function read() {
  try {
    return JSON.parse(sessionStorage.getItem("takes")) ?? [];
  } catch {
    return []; // storage is switched off or damaged: the history then starts anew
  }
}

function write() {
  try {
    sessionStorage.setItem("takes", JSON.stringify(takes));
  } catch {
    // storage is full or switched off: the history lives as long as the page
  }
}

export const findTake = (id) => takes.find((take) => take.id === id);

/** Keep a finished job; `extra` is what the service does not keep: {prompt, curl}. */
export function keepTake(job, extra) {
  if (findTake(job.id)) return;
  takes = [{ id: job.id, ...extra, poster: job.output.poster_url ?? "" }, ...takes].slice(0, KEPT);
  write();
}

export function dropTakes() {
  takes = [];
  write();
}

/** Draw them all; `current` is the one on the stage, `open(id)` brings another one there. */
export function showTakes(current, open) {
  $("history").hidden = takes.length === 0;
  $("takes").replaceChildren(...takes.map((take) => makeTake(take, take.id === current, () => open(take.id))));
}

function makeTake(take, isCurrent, open) {
  const picture = Object.assign(document.createElement("img"), { alt: "" });
  openFile(take.poster).then((url) => (picture.src = url), () => {}); // an expired one stays blank
  const words = Object.assign(document.createElement("span"), { textContent: take.prompt });
  const button = Object.assign(document.createElement("button"), { type: "button", className: "take" });
  button.append(picture, words);
  button.dataset.id = take.id;
  button.setAttribute("aria-current", String(isCurrent));
  button.addEventListener("click", open);
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// The page at "/": choose a face, say a sentence, watch the job, play the film. It uses nothing but the public API of
// this service, and every text that came from elsewhere is set by textContent only.

import { keepKey } from "./key.js";
import { Problem, TERMINAL, call, openFile, pathOf, watch, writeCurl } from "./service.js";
import { dropTakes, findTake, keepTake, showTakes } from "./takes.js";

const $ = (id) => document.getElementById(id);
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const STAGES = {
  fetch: [0, "Opening the picture"],
  align: [0, "Finding the face"],
  invert: [0, "Learning the face"],
  move: [1, "Planning the motion"],
  render: [2, "Drawing"],
  encode: [3, "Making the film"],
  store: [3, "Putting it away"],
};
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let face = null; // {kind: "file", blob, name, url, sample} or {kind: "sampled"}
let stopWatching = () => {};
let shown = null; // the job on the stage
let models = [];
let samples = [];

function showProblem(error) {
  const known = error instanceof Problem;
  const [detail, hint] = $("problem").children;
  detail.textContent = known ? error.message : "Something on this page went wrong.";
  hint.textContent = known ? error.hint : String(error);
  $("problem").hidden = false;
  $("problem").scrollIntoView({ block: "nearest" });
}

// ---- the face -------------------------------------------------------------------------------------------------

function show(what) {
  $("stage").dataset.show = what;
  if (what !== "video") $("video").pause();
}

/** Put the chosen face back on the stage, as it was before any job. */
function showFace() {
  if (!face) show("empty");
  else if (face.kind === "sampled") show("surprise");
  else {
    $("face").src = face.url;
    show("face");
  }
}

function chooseFace(chosen, tile = null) {
  if (face?.url?.startsWith("blob:")) URL.revokeObjectURL(face.url);
  face = chosen;
  for (const other of document.querySelectorAll(".tile")) other.setAttribute("aria-pressed", String(other === tile));
  $("problem").hidden = true;
  $("result").hidden = true;
  $("terminal").hidden = true;
  showFace();
}

function chooseFile(file) {
  if (!file) return;
  $("face").alt = `The chosen face, ${file.name || "pasted"}`;
  chooseFace({ kind: "file", blob: file, name: file.name || "face.png", url: URL.createObjectURL(file) }, $("choose"));
}

function makeSampleTile(sample) {
  const picture = make("img", { src: sample.url, alt: "" });
  const tile = make("button", { type: "button", className: "tile", ariaLabel: `Sample face ${sample.name}` }, picture);
  tile.setAttribute("aria-pressed", "false");
  tile.addEventListener("click", () => {
    $("face").alt = `Sample face ${sample.name}`;
    chooseFace({ kind: "file", name: sample.url.split("/").pop(), url: sample.url, sample: true }, tile);
  });
  return tile;
}

async function loadSamples() {
  ({ data: samples } = await call("/samples"));
  showSamples();
  if (!face && !location.hash) $("samples").firstElementChild?.click();
}

/** Offer the chosen model's own kind of faces; a sample of another kind gives way to the first of them. */
function showSamples() {
  const own = samples.filter(({ model }) => model && model === $("model").value);
  const offered = own.length ? own : samples.filter(({ model }) => !model);
  $("samples").replaceChildren(...offered.map(makeSampleTile));
  const shown = face?.sample && [...$("samples").children].findIndex((_, place) => offered[place].url === face.url);
  if (face?.sample) $("samples").children[Math.max(shown, 0)]?.click();
}

// ---- the sentence ---------------------------------------------------------------------------------------------

const promptText = () => $("prompt").value.replace(/\s+/g, " ").trim();

function markPreset() {
  for (const chip of $("presets").children) chip.setAttribute("aria-pressed", String(chip.textContent === promptText()));
}

function showPresets() {
  const model = models.find((each) => each.id === $("model").value) || models[0];
  const presets = model?.presets?.length ? model.presets : (model?.expressions ?? []);
  $("presets").replaceChildren(
    ...presets.slice(0, 12).map((words) => {
      const chip = make("button", { type: "button", className: "chip", textContent: words });
      chip.addEventListener("click", () => {
        $("prompt").value = words;
        markPreset();
      });
      return chip;
    }),
  );
  markPreset();
}

async function loadModels() {
  ({ data: models } = await call("/v1/models"));
  $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  $("model-field").hidden = models.length < 2;
  showPresets();
  showSamples();
}

function showDials() {
  for (const dial of [$("intensity"), $("duration")]) {
    dial.style.setProperty("--at", `${(100 * (dial.value - dial.min)) / (dial.max - dial.min)}%`);
  }
  $("intensity-value").textContent = Number($("intensity").value).toFixed(1);
  $("duration-value").textContent = `${Number($("duration").value).toFixed(1)} s`;
}

// ---- the job --------------------------------------------------------------------------------------------------

/** Read the form into the fields of POST /v1/animations; Raises: Problem when a field can't be right. */
function readFields() {
  if (!promptText()) throw new Problem("Say what the face should do.", "One sentence is enough, for example “smiling”.");
  if (!face) throw new Problem("Choose a face first.", "Drop a picture, pick a sample, or take a surprise.");
  const fields = { prompt: promptText(), intensity: $("intensity").value, duration_s: $("duration").value };
  const seed = $("seed").value.trim();
  if (seed && (!/^\d+$/.test(seed) || Number(seed) > 4294967295)) {
    throw new Problem("The seed is a whole number up to 4294967295.", "Leave it empty for a new one every time.");
  }
  if (seed) fields.seed = seed;
  if (models.length > 1) fields.model = $("model").value;
  if ($("loop").value !== "none") fields.loop = $("loop").value;
  if ($("sway").value !== "true") fields.sway = $("sway").value;
  if (face.kind === "sampled") fields.source = "sampled";
  else if ($("compose").value !== "crop") fields.compose = $("compose").value;
  return fields;
}

async function submit() {
  if ($("submit").disabled) return;
  $("problem").hidden = true;
  try {
    const fields = readFields();
    const options = JSON.stringify({ output: { format: $("format").value } });
    const source = face;
    shown = null;
    setBusy(true);
    $("status").textContent = "Sending";
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("options", options);
    if (source.kind === "file") {
      source.blob ??= await (await fetch(source.url)).blob();
      form.append("image", source.blob, source.name);
    }
    const job = await call("/v1/animations", { method: "POST", body: form });
    const picture = source.kind === "file" && { name: source.name, url: source.sample ? source.url : null };
    follow(job, { prompt: fields.prompt, curl: writeCurl({ ...fields, options, seed: job.input.seed }, picture) });
  } catch (error) {
    setBusy(false);
    showProblem(error);
  }
}

function setBusy(busy) {
  $("stage").classList.toggle("busy", busy);
  $("submit").disabled = busy;
  $("submit").textContent = busy ? "Animating…" : "Animate";
  $("cancel").hidden = true; // until there is a job to cancel
  $("cancel").disabled = false;
  $("work").hidden = !busy;
  for (const button of document.querySelectorAll(".take")) button.disabled = busy;
  $("keys").hidden = busy;
  if (busy) {
    $("result").hidden = true;
    $("terminal").hidden = true;
    $("stage").scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
    $("progress").removeAttribute("value");
    $("eta").textContent = "";
    markStep(-1);
  }
}

function markStep(now) {
  [...document.querySelectorAll(".steps li")].forEach((step, index) => {
    step.className = index < now ? "done" : index === now ? "now" : "";
  });
}

/** Show a job from here on, whatever state it is in. `extra` is what the service does not keep: {prompt, curl}. */
function follow(job, extra) {
  stopWatching();
  history.replaceState(null, "", `#${job.id}`);
  stopWatching = watch(job, {
    news: (news) => {
      shown = news;
      if (TERMINAL.has(news.status)) finish(news, extra);
      else showProgress(news);
    },
    preview: showPreview,
    trouble: (error) => ($("status").textContent = error.message),
    gone: (error) => {
      setBusy(false);
      history.replaceState(null, "", location.pathname);
      showFace();
      showProblem(error);
    },
  });
}

function showPreview(source) {
  $("preview").src = source;
  show("preview");
}

function showProgress(job) {
  const step = STAGES[job.stage] ?? [0, "Working"];
  const waiting = job.status === "queued" || !job.stage;
  const words = job.cancel_requested ? "Stopping" : waiting ? "Waiting for its turn" : step[1];
  if ($("status").textContent !== words) $("status").textContent = words; // read aloud: only when it changes
  $("cancel").hidden = false;
  markStep(waiting ? -1 : step[0]);
  if (waiting) $("progress").removeAttribute("value");
  else $("progress").value = job.progress ?? 0;
  const facts = [];
  if (waiting && job.queue_position > 1) facts.push(`number ${job.queue_position} in line`);
  if (job.stage === "render") facts.push(`frame ${job.frames_done}/${job.frames_total}`);
  if (!waiting && Number.isFinite(job.eta_s)) facts.push(`${Math.max(1, Math.ceil(job.eta_s))} s left`);
  $("eta").textContent = facts.join(" · ");
}

async function finish(job, extra) {
  if (job.status === "succeeded") {
    try {
      if (!(await showResult(job, extra))) return;
    } catch (error) {
      setBusy(false);
      showFace();
      showProblem(error);
      return;
    }
    keepTake(job, extra);
    showTakes(job.id, reopen);
    if ([document.body, $("submit"), $("cancel")].includes(document.activeElement)) $("download").focus();
    return;
  }
  setBusy(false);
  history.replaceState(null, "", location.pathname);
  showFace();
  if (job.status === "canceled") showProblem(new Problem("Canceled.", "Nothing was kept; the sentence is still here."));
  else if (job.status === "expired") showProblem(new Problem("It waited too long and expired.", "Try again in a moment."));
  else showProblem(new Problem(job.error?.message ?? "The job failed.", job.error?.hint ?? ""));
}

async function cancel() {
  $("cancel").disabled = true;
  $("status").textContent = "Stopping";
  try {
    if (shown) await call(`${pathOf(shown.id)}/cancel`, { method: "POST" });
  } catch (error) {
    if (shown && !TERMINAL.has(shown.status)) showProblem(error);
  }
}

// ---- the film -------------------------------------------------------------------------------------------------

async function showResult(job, { curl, prompt }) {
  const { output, metrics = {} } = job;
  const moving = output.format === "mp4" || output.format === "webm";
  const [film, poster] = await Promise.all([openFile(output.url), openFile(output.poster_url)]);
  if (shown?.id !== job.id) return false; // another one was opened meanwhile
  setBusy(false);
  if (moving) {
    $("video").src = film;
    if (poster) $("video").poster = poster;
    if (!calm.matches) $("video").play().catch(() => {}); // a browser may insist on a click: the controls are there
  } else $("picture").src = film;
  show(moving ? "video" : "picture");
  const name = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40) || "animation";
  $("download").href = film;
  $("download").download = `${name}.${output.format === "apng" ? "png" : output.format}`;
  $("looping").hidden = !moving;
  const facts = [`“${prompt}”`, `${output.frames} frames, ${output.width} × ${output.height}`, `seed ${job.input.seed}`];
  if (metrics.render_s) facts.push(`drawn in ${metrics.render_s.toFixed(1)} s`);
  $("summary").textContent = facts.join(" · ");
  $("curl").textContent = curl ?? "";
  $("terminal").hidden = !curl;
  $("result").hidden = false;
  $("status").textContent = "";
  for (const button of document.querySelectorAll(".take")) {
    button.setAttribute("aria-current", String(button.dataset.id === job.id));
  }
  return true;
}

/** Bring an earlier job back to the stage: of this session's history or of the address after "#". */
async function reopen(id) {
  try {
    $("problem").hidden = true;
    const job = await call(pathOf(id));
    const known = findTake(id);
    if (!TERMINAL.has(job.status)) setBusy(true);
    follow(job, { curl: known?.curl ?? null, prompt: known?.prompt ?? job.input.prompt });
  } catch (error) {
    history.replaceState(null, "", location.pathname);
    if (!face) $("samples").firstElementChild?.click();
    showProblem(error);
  }
}

// ---- wires ----------------------------------------------------------------------------------------------------

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("form").addEventListener("keydown", (event) => {
  const typing = event.target === $("prompt");
  if (event.key !== "Enter" || event.isComposing || !(event.ctrlKey || event.metaKey || (typing && !event.shiftKey))) return;
  event.preventDefault();
  submit();
});
$("prompt").addEventListener("input", markPreset);
$("intensity").addEventListener("input", showDials);
$("duration").addEventListener("input", showDials);
$("model").addEventListener("change", showPresets);
$("model").addEventListener("change", showSamples);
$("cancel").addEventListener("click", cancel);
$("video").addEventListener("error", () => {
  if ($("stage").dataset.show === "video") showProblem(new Problem("This browser can't play the film.", "Download it."));
});
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  chooseFile($("file").files[0]);
  $("file").value = "";
});
$("surprise").addEventListener("click", () => chooseFace({ kind: "sampled" }, $("surprise")));
$("looping").addEventListener("click", () => {
  const video = $("video");
  video.loop = !video.loop;
  $("looping").setAttribute("aria-pressed", String(video.loop));
  if (video.loop && video.ended) video.play().catch(() => {});
});
$("again").addEventListener("click", () => {
  $("seed").value = "";
  submit();
});
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("curl")); // no clipboard without https: then the text stands selected
    $("copy").textContent = "Selected";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 2000);
});

$("other-key").addEventListener("click", () => {
  keepKey("");
  dropTakes(); // another key may be another client's, who can't see them
  location.replace(location.pathname);
});

let dragged = 0;
addEventListener("dragenter", () => document.body.classList.toggle("dropping", ++dragged > 0));
addEventListener("dragleave", () => document.body.classList.toggle("dropping", --dragged > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragged = 0;
  document.body.classList.remove("dropping");
  chooseFile(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => chooseFile(event.clipboardData?.files[0]));
addEventListener("hashchange", () => location.hash.length > 1 && reopen(location.hash.slice(1)));

showFace();
showDials();
showTakes(null, reopen);
Promise.all([loadModels(), loadSamples()]).catch(showProblem);
if (location.hash.startsWith("#anm_")) reopen(location.hash.slice(1));

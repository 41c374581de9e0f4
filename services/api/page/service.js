// What the page says to the service and hears from it: calls, a watched job, files, the same request as shell commands.
// It knows nothing of the page's elements but the sheet that asks for a key.

import { askForKey, proof, readKey } from "./key.js";
import { follow } from "./stream.js";

export const TERMINAL = new Set(["succeeded", "failed", "canceled", "expired"]);
const POLL_MS = 400;
const CROWDED_POLL_MS = 1000; // while the service has no place for one more stream
const CHECK_MS = 5000; // how often an open event stream is doubted
const REOPEN_MS = 2000;

/** A refusal in words a person can act on. */
export class Problem extends Error {
  constructor(detail, hint = "", status = 0) {
    super(detail);
    this.hint = hint;
    this.status = status; // of the answer; 0 where there was none
  }
}

/** Ask the service, with the key where one is needed. Raises: Problem with the words of the problem document. */
async function ask(path, options = {}) {
  const key = readKey();
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...proof() } });
  } catch {
    throw new Problem("The service does not answer.", "See whether it is still running, then try again.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const detail = body?.detail || body?.title || `The service answered ${response.status}.`;
  if (response.status === 401 && (await askForKey(key, detail))) return ask(path, options);
  throw new Problem(detail, body?.hint || "", response.status);
}

/** Call the API and return its JSON. Raises: Problem. */
export const call = async (path, options) => (await ask(path, options)).json().catch(() => null);

const files = new Map(); // path → URL of a file that was fetched with the key

/**
 * Return a URL that an element of the page can show: the service's own, or a copy where a key is needed, which elements
 * can't send. `redirect=false`: a store elsewhere need not know this page. Raises: Problem.
 */
export async function openFile(path) {
  if (!path || !readKey()) return path;
  if (!files.has(path)) files.set(path, URL.createObjectURL(await (await ask(`${path}?redirect=false`)).blob()));
  return files.get(path);
}

export const pathOf = (id) => `/v1/animations/${encodeURIComponent(id)}`;

/**
 * Watch a job until it ends: server-sent events where they come through, asking again and again where they do not.
 * `hear.news(job)` gets every state, the terminal one last; `hear.preview(url)` a picture; `hear.trouble(error)` a
 * refusal that may pass; `hear.gone(error)` comes last where somebody has deleted the job. Returns a function that
 * stops watching.
 */
export function watch(job, hear) {
  const path = pathOf(job.id);
  const ending = new AbortController();
  let streaming = false;
  let pollMs = POLL_MS;
  let timer = 0;
  let over = false;
  const stop = () => {
    over = true;
    clearTimeout(timer);
    ending.abort();
  };
  let known = job; // progress events carry only what changed
  const take = (news) => {
    if (over) return;
    known = { ...known, ...news };
    if (TERMINAL.has(known.status)) stop();
    hear.news(known);
  };
  const schedule = () => {
    clearTimeout(timer);
    if (!over) timer = setTimeout(check, streaming ? CHECK_MS : pollMs);
  };
  const check = async () => {
    try {
      take(await call(path));
    } catch (error) {
      if (over) return;
      if (error.status === 404) {
        stop();
        hear.gone(error);
        return;
      }
      hear.trouble(error);
    }
    schedule();
  };
  take(job);
  if (over) return stop;
  const listen = async () => {
    let refusedMs = 0;
    try {
      await follow(job.urls?.events ?? `${path}/events`, proof(), ending.signal, (kind, data) => {
        streaming = true;
        if (kind === "preview" && !over) hear.preview(data.image);
        if (["status", "progress", "done"].includes(kind)) take(data);
        schedule();
      });
    } catch (error) {
      refusedMs = 1000 * (error.retryAfterS ?? 0); // else it broke, or it was ended here
    }
    // Polling goes on meanwhile: the stream makes it smoother, nothing depends on it.
    streaming = false;
    pollMs = refusedMs ? CROWDED_POLL_MS : POLL_MS;
    schedule();
    if (!over) setTimeout(() => over || listen(), Math.max(REOPEN_MS, refusedMs));
  };
  listen();
  schedule();
  return stop;
}

const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

/** Write the shell commands that ask for the same film again. `picture` is {name, url?} or null for a sampled face. */
export function writeCurl(fields, picture) {
  const lines = [];
  if (picture?.url) lines.push(`curl -O ${quote(new URL(picture.url, location.href).href)}`);
  const parts = ["curl -H 'Prefer: wait=60'"];
  if (readKey()) parts.push('-H "Authorization: Bearer $ANIMATO_API_KEY"'); // the key itself stays in this tab
  if (picture) parts.push(`-F ${quote(`image=@"${picture.name.replaceAll(/["\\]/g, "\\$&")}"`)}`);
  for (const [name, value] of Object.entries(fields)) parts.push(`--form-string ${quote(`${name}=${value}`)}`);
  parts.push(`${location.origin}/v1/animations`);
  return [...lines, parts.join(" \\\n  ")].join("\n");
}

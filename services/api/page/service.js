// What the page says to the service and hears from it: calls, a watched job, the same request as shell commands.
// It knows nothing of the page's elements.

export const TERMINAL = new Set(["succeeded", "failed", "canceled", "expired"]);
const POLL_MS = 400;
const CHECK_MS = 5000; // how often an open event stream is doubted

/** A refusal in words a person can act on. */
export class Problem extends Error {
  constructor(detail, hint = "") {
    super(detail);
    this.hint = hint;
  }
}

/** Call the API and return its JSON. Raises: Problem with the words of the problem document. */
export async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem("The service does not answer.", "See whether it is still running, then try again.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  throw new Problem(body?.detail || body?.title || `The service answered ${response.status}.`, body?.hint || "");
}

export const pathOf = (id) => `/v1/animations/${encodeURIComponent(id)}`;

/**
 * Watch a job until it ends: server-sent events where they come through, asking again and again where they do not.
 * `hear.news(job)` gets every state, the terminal one last; `hear.preview(url)` a picture; `hear.trouble(error)` a
 * refusal that may pass. Returns a function that stops watching.
 */
export function watch(job, hear) {
  const path = pathOf(job.id);
  let stream = null;
  let timer = 0;
  let over = false;
  const stop = () => {
    over = true;
    clearTimeout(timer);
    stream?.close();
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
    if (!over) timer = setTimeout(check, stream?.readyState === EventSource.OPEN ? CHECK_MS : POLL_MS);
  };
  const check = async () => {
    try {
      take(await call(path));
    } catch (error) {
      if (!over) hear.trouble(error);
    }
    schedule();
  };
  take(job);
  if (over) return stop;
  stream = new EventSource(job.urls?.events ?? `${path}/events`);
  for (const kind of ["status", "progress", "done"]) {
    stream.addEventListener(kind, (event) => {
      take(JSON.parse(event.data));
      schedule();
    });
  }
  stream.addEventListener("preview", (event) => {
    if (!over) hear.preview(JSON.parse(event.data).image);
  });
  stream.addEventListener("error", schedule);
  schedule();
  return stop;
}

const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

/** Write the shell commands that ask for the same film again. `picture` is {name, url?} or null for a sampled face. */
export function writeCurl(fields, picture) {
  const lines = [];
  if (picture?.url) lines.push(`curl -O ${quote(new URL(picture.url, location.href).href)}`);
  const parts = ["curl -H 'Prefer: wait=60'"];
  if (picture) parts.push(`-F ${quote(`image=@"${picture.name.replaceAll(/["\\]/g, "\\$&")}"`)}`);
  for (const [name, value] of Object.entries(fields)) parts.push(`--form-string ${quote(`${name}=${value}`)}`);
  parts.push(`${location.origin}/v1/animations`);
  return [...lines, parts.join(" \\\n  ")].join("\n");
}

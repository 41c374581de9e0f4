// Server-sent events over fetch: unlike EventSource it can send a key. One stream, no reconnecting: that is the
// caller's, who asks by polling as well.

/**
 * Follow `path`; `hear(kind, data)` gets every event. Resolves when the stream ends, rejects when it breaks or is
 * refused: `error.retryAfterS` then says for how long (0: the service did not say).
 */
export async function follow(path, headers, signal, hear) {
  const response = await fetch(path, { headers: { Accept: "text/event-stream", ...headers }, signal });
  if (!response.ok || !response.body) {
    const retryAfterS = Number(response.headers.get("Retry-After")) || 0;
    throw Object.assign(new Error(`events: ${response.status}`), { retryAfterS });
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value.replaceAll("\r", "");
    const events = buffer.split("\n\n");
    buffer = events.pop(); // what has not ended yet
    for (const text of events) deliver(text, hear);
  }
}

function deliver(text, hear) {
  let kind = "message";
  const data = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  if (data.length) hear(kind, JSON.parse(data.join("\n")));
}

// What the page asks of the studio, and the stream of events. The token stays in this module's memory.

let token = "";

export class StudioError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(given) {
  token = given;
}

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers: headers(options.headers) });
  } catch {
    throw new StudioError(0, "The studio cannot be reached. Is it still running in its terminal?");
  }
  if (response.ok) return response;
  const values = await response.json().catch(() => ({}));
  throw new StudioError(response.status, values.error ?? `The studio responded with status ${response.status}.`);
}

// The response of an action, such as `ask("train", {...})`.
export async function ask(name, values = {}) {
  const response = await send(`api/${name}`, { method: "POST", body: JSON.stringify(values) });
  return response.json();
}

// As `ask`, with bytes, such as an image, and values in the address.
export async function post(name, bytes, values = {}) {
  const query = new URLSearchParams(values);
  const response = await send(`api/${name}?${query}`, { method: "POST", body: bytes, headers: { "Content-Type": "application/octet-stream" } });
  return response.json();
}

// Saves a file of a run on the visitor's disk; a link could not send the token.
export async function download(run, file) {
  const response = await send(`api/file?${new URLSearchParams({ run, file })}`, {});
  const url = URL.createObjectURL(await response.blob());
  Object.assign(document.createElement("a"), { href: url, download: `${run}-${file}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// Calls `receive` with each event after the mark `after`, for as long as the page is open. The studio ends the stream
// from time to time, and the next one continues after the last event, so that none is lost.
export async function follow(after, receive, tellConnected) {
  let last = after;
  for (;;) {
    try {
      const response = await send("api/events", { headers: { "Last-Event-ID": last } });
      tellConnected(true);
      for await (const [mark, event] of readEvents(response.body)) {
        last = mark;
        receive(event);
      }
    } catch (error) {
      tellConnected(false, error.status);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (lines.data) yield [lines.id, JSON.parse(lines.data)];
    }
  }
}

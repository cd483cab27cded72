// What the page asks of the studio, and the stream of events.

import { post as postBytes, request } from "./request.js";

const PAGE = Math.random().toString(36).slice(2);

// The response of an action, such as `ask("train", {...})`.
export async function ask(name, values = {}) {
  return (await request(`api/${name}`, { method: "POST", body: JSON.stringify(values) })).json();
}

// As `ask`, for results that take a while: those of an older request of this kind that still waits
// are no longer wanted.
export function askLast(name, values, kind = name) {
  return ask(name, { ...values, replaces: `${PAGE} ${kind}` });
}

// As `ask`, with bytes, such as an image.
export const post = (name, bytes, values) => postBytes(`api/${name}`, bytes, values);

// Saves a file of a run on the visitor's disk; a link could not send the token.
export async function download(run, file) {
  const response = await request(`api/file?${new URLSearchParams({ run, file })}`);
  const url = URL.createObjectURL(await response.blob());
  Object.assign(document.createElement("a"), { href: url, download: `${run}-${file}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// The events from now on, once the studio sends them; `signal` ends them.
export async function openEvents(signal) {
  return readEvents((await request("api/events", { signal })).body);
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
    for (const block of blocks) if (block.startsWith("data: ")) yield JSON.parse(block.slice("data: ".length));
  }
}

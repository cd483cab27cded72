// Try it: the net on an image of one's own.

import { post } from "../api.js";
import { ImageForm } from "../image-form.js";
import { Note } from "../parts.js";
import { html, useState } from "../preact.js";
import { state } from "../state.js";
import { Inside } from "./closer.js";
import { Explanations } from "./explanations.js";

const LIMIT_BYTES = 32e6;

export function Try({ run }) {
  const [shown, show] = useState(null);
  const [text, say] = useState("");
  if (!run.rows.length)
    return html`<${Note}>After its first epoch, you can try the net on your own images here.</${Note}>`;
  const predict = async (image, isCurrent, isLive) => {
    if (!isLive) show(null); // an older prediction is never beside a newer image
    const send = (action) => post(action, image, { run: run.name });
    const look = await send("look");
    if (isCurrent()) show({ image, look, send, isLive });
    return "";
  };
  const isCameraFirst = state.sets.made === run.source;
  return html`
    <${ImageForm} ...${{ predict, say, limitBytes: LIMIT_BYTES, isCameraFirst }} />
    <${Note}>The image goes only to this studio, which does not store it.</${Note}>
    <p class="note" aria-live="polite">${text}</p>
    ${shown && html`<${Inside} ...${shown.look} />`}
    ${shown && !shown.isLive && html`<${Explanations} key=${shown.image} send=${shown.send} />`}
  `;
}

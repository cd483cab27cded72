// A closer look at one image: the prediction, the outputs of the layers, and more on request.

import { askLast } from "../api.js";
import { Button, Details, Layers, Outcome, Picture, Problem, Table, percent, useLoaded } from "../parts.js";
import { html, useLayoutEffect, useRef, useState } from "../preact.js";
import { Explanations } from "./explanations.js";

const FIRST = 12; // images, until more are wanted
const FEW = 8; // layers that are shown at once
const NAMES = { regression: "number", "multi-label": "labels" };

// Thumbnails from `show_tiles`, which open the closer look; `describe` gives the lines below an image.
export function Gallery({ run, split, problem, images, describe }) {
  const [opened, open] = useState(null);
  const [limit, setLimit] = useState(FIRST);
  const show = (image) => {
    const lines = describe(image).map((line) => html`<span>${line.replaceAll(" %", "\u00a0%")}</span>`);
    const file = image.name.split("/").at(-1).replace(/^\d+$/u, ""); // a mere number is no file
    const text = html`<span>${lines}</span><span class="note">${file}</span>`;
    if (!image.png) return html`<li class="tile">${text}</li>`;
    return html`<li><button type="button" class="tile" onClick=${() => open(image)}>
      <${Picture} png=${image.png} alt="" kind="pixels" />${text}
    </button></li>`;
  };
  return html`
    <${Problem} text=${problem} />
    <ul class="gallery">${images.slice(0, limit).map(show)}</ul>
    ${images.length > limit && html`<${Button} small onClick=${() => setLimit(Infinity)}>Show all ${images.length}</>`}
    ${opened && html`<${Closer} run=${run} split=${split} image=${opened} close=${() => open(null)} />`}
  `;
}

function Closer({ run, split, image: { row, name }, close }) {
  const dialog = useRef();
  useLayoutEffect(() => dialog.current.showModal(), []);
  const send = (action) => askLast(action, { run: run.name, image: [split, row] });
  const look = useLoaded("Computing the layers", () => send("look"), []);
  const draw = (result) => html`<${Inside} ...${result} /><${Explanations} send=${send} />`;
  return html`<dialog ref=${dialog} aria-labelledby="closer-title" onClose=${close}>
    <div class="row">
      <h3 id="closer-title">${name} (${split})</h3>
      <${Button} onClick=${() => dialog.current.close()}>Close</${Button}>
    </div>
    <${Outcome} request=${look} draw=${draw} />
  </dialog>`;
}

// The prediction for an image, and what the layers make of it.
export function Inside({ image, predicted, values, target, kind, filters, layers }) {
  const isNumber = kind === "regression";
  const name = NAMES[kind] ?? "class";
  const heads = [name, isNumber ? "predicted" : "probability"];
  const share = (value) =>
    html`<div class="share"><i style=${{ width: `${100 * value}%` }}></i><span>${percent(value)}</span></div>`;
  const rows = values.map(([name, value]) => [name, isNumber ? String(Number(value.toPrecision(5))) : share(value)]);
  return html`
    <p>Prediction: <strong>${predicted}</strong>${target !== null && `; true ${name}: ${target}`}</p>
    <div class="looks">
      <div class="look">
        <h4>input of the net</h4>
        <${Picture} png=${image} alt="the image as the net receives it" kind="pixels large" />
      </div>
      <div class="look"><${Table} heads=${heads} rows=${rows} label="" /></div>
    </div>
    <${Details} summary="What its layers compute" open=${layers.length <= FEW}>
      <div class="looks"><${Layers} filters=${filters} layers=${layers} /></div>
    </${Details}>
  `;
}

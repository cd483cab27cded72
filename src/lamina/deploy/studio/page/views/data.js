// Step 1: which images, what is in them, and their problems.

import { openClasses } from "../actions/classes.js";
import { passSource, useSource } from "../actions/data.js";
import { Button, Details, Note, Picture, Problem, Progress, count, plural } from "../parts.js";
import { html } from "../preact.js";
import { change, describeSource, findSource, state } from "../state.js";
import { Classes } from "./classes.js";
import { Labels } from "./labels.js";
import { Term } from "./term.js";

const WORDS = { error: "Error", warning: "Warning", note: "Note" };
const PURPOSES = { train: "to learn from", val: "to check during training (val)", test: "to test" };
const KINDS = {
  "multi-label": "Each image may have several labels.",
  binary: "Each image is a yes or a no.",
  regression: "Each image has numbers to predict.",
};

export function summarizeData() {
  const name = findSource()?.name ?? "";
  return state.preview ? `${name}, ${plural(countImages(), "image")}` : name;
}

function countImages() {
  return Object.values(state.preview.images).reduce((sum, size) => sum + size, 0);
}

export function DataStep() {
  const { source: shown, sources, isMaking, preview, reading } = state;
  const list = (isBuiltIn) =>
    sources
      .filter((known) => known.is_built_in === isBuiltIn)
      .map(({ name, source }) => html`<option value=${source}>${name}</option>`);
  return html`
    <div class="row">
      <label for="source">Data set</label>
      <select id="source" value=${shown} onChange=${({ target }) => passSource(target.value)}>
        ${list(false).length > 0 && html`<optgroup label="Your images">${list(false)}</optgroup>`}
        <optgroup label="Built in">${list(true)}</optgroup>
      </select>
      <button id="make" type="button" aria-expanded=${isMaking} aria-controls="making"
        onClick=${() => openClasses(!isMaking)}>Make your own classes</button>
    </div>
    <${Classes} />
    <div hidden=${isMaking}>
      <div id="data-view">${preview ? Preview(preview) : Reading(reading)}</div>
      <${Labels} />
      <${Loading} />
    </div>
  `;
}

function Reading({ what = "Reading", done, total, downloadMb, problem }) {
  if (problem) return html`<${Problem} text=${withoutOptions(problem)} />`;
  if (downloadMb) {
    return html`<p>${state.source} is not on this machine yet. It has ${downloadMb} MB.</p>
      <${Button} onClick=${() => useSource(state.source, true)}>Download ${downloadMb} MB</${Button}>`;
  }
  const text = total ? `${what}: ${count(done)} of ${count(total)}` : `${what} …`;
  return html`<${Note}>${text}</${Note}><${Progress} label=${what} value=${total && done / total} />`;
}

function Preview({ images, shape, kind, classes, groups, findings, sizes }) {
  const [channels, height, width] = shape;
  const outputs = kind === "regression" ? plural(classes, "number") : plural(classes, "class", "classes");
  const size = (split) => (images[split] ? count(images[split]) : "none");
  const splits = Object.keys(PURPOSES).map((split) => `${size(split)} ${PURPOSES[split]}`);
  const color = channels === 1 ? "gray" : "color";
  const ends = sizes ? [sizes.smallest_px, sizes.largest_px] : [[height, width]];
  const originals = [...new Set(ends.map(([y, x]) => `${x}×${y}`))].join(" to ");
  let use = originals === `${width}×${height}` ? "" : `; ${width}×${height} px for training`;
  if (state.net.isChosen && !state.sizePx) use = "; lamina chooses the size for training";
  const more = classes - groups.length;
  return html`
    <p><strong>${plural(countImages(), "image")}, ${outputs}</strong>, ${originals} px, ${color}${use}</p>
    <p id="splits">${splits.join(", ")} <${Term} name="split" /></p>
    ${KINDS[kind] && html`<${Note}>${KINDS[kind]}</${Note}>`}
    <${Note}>How many of each class to learn from:</${Note}>
    <ul class="sheet" aria-label="Samples of each class">${groups.map(Group)}</ul>
    ${more > 0 && groups.length > 1 && html`<${Note}>and ${plural(more, "more class", "more classes")}</${Note}>`}
    ${!findings.length && html`<p class="good">No problems found.</p>`}
    ${findings.length > 0 && html`<${Findings} findings=${findings} kind=${kind} />`}
  `;
}

function Group({ name, count: size, images }) {
  const draw = ({ row, png }) => html`<${Picture} png=${png} alt=${`training image ${row} of ${name}`} />`;
  return html`<li>
    <div class="tiles">${images.map(draw)}</div>
    <span>${name} <span class="note">${count(size)}</span></span>
  </li>`;
}

function Findings({ findings, kind }) {
  const word = kind in KINDS ? "target" : "class";
  const list = ({ split, name }) => html`<li>${split ? `${name} (${split})` : name}</li>`;
  const which = (shown, size) => (shown < size ? `The first ${shown} of ${count(size)} images` : "Which images");
  const show = ({ severity, message, images, size }) => html`<li class=${severity}>
    <strong>${WORDS[severity]}: </strong>${withoutOptions(message).replaceAll("target", word)}
    ${size > 0 && html`<${Details} summary=${which(images.length, size)}><ul>${images.map(list)}</ul></${Details}>`}
  </li>`;
  const summary = `${plural(findings.length, "finding")} about these images`;
  return html`<${Details} summary=${summary} open=${findings[0].severity === "error"}>
    <ul class="findings">${findings.map(show)}</ul>
  </${Details}>`;
}

// What lamina says about data, without the sentences about options of its commands.
function withoutOptions(text) {
  const sentences = text.split(/(?<=[.;]) /u).filter((sentence) => !/(^| )--\w/u.test(sentence));
  return sentences.join(" ").replace(/;$/u, ".") || text;
}

function Loading() {
  const reload = () => useSource(state.source);
  const show = (id, name, label, help, usual) => html`<label>
    ${label}
    <input id=${id} inputmode="decimal" placeholder=${usual} aria-describedby=${`${id}-help`} value=${state[name]}
      onInput=${({ target }) => change({ [name]: target.value })} onChange=${reload} />
    <span id=${`${id}-help`} class="note">${help}</span>
  </label>`;
  const usual = "as lamina chooses";
  const usualVal = describeSource().val || usual;
  return html`<${Details} summary="How to load it">
    <div class="fields loading">
      ${show("size", "sizePx", "Image size in px", "Smaller images train faster.", usual)}
      ${show("val", "val", "Part held out (val)", "0.1: a tenth, to check the training.", usualVal)}
    </div>
    ${state.preview && html`<${Note}>Splits: ${state.preview.split_rule}</${Note}>`}
  </${Details}>`;
}

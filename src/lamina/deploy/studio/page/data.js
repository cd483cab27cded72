// Step 1: which images, what is in them, and their problems.

import { ask } from "./api.js";
import { Classes, openClasses } from "./classes.js";
import { Labels } from "./labels.js";
import { refreshNet, useOwnData } from "./net.js";
import { Details, Note, Picture, Problem, Progress, count, plural } from "./parts.js";
import { html } from "./preact.js";
import { refreshPlan } from "./recipe.js";
import { change, changePart, state } from "./store.js";

const WORDS = { error: "Error", warning: "Warning", note: "Note" };
const PURPOSES = { train: "to learn from", val: "to check during training (val)", test: "to test" };
const KINDS = {
  "multi-label": "Each image may have several labels.",
  binary: "Each image is a yes or a no.",
  regression: "Each image has numbers to predict.",
};
const WAIT_MS = 300; // after the last change, because arrow keys pass other data sets
let timer = 0;
let asked = {}; // what is being read; the response to another request is not wanted
let used = null; // the source that was read last; arrow keys may pass others

export function findSource(source = state.source) {
  return state.sources.find((known) => known.source === source);
}

// How the data set is loaded, for the studio's commands. Published sets have no val split, which
// the curves need; for others, lamina draws one.
export function describeSource() {
  const size = state.sizePx.trim(); // if it is no number, lamina says so
  return {
    source: state.source,
    size_px: Number(size) || size || null,
    val: state.val.trim() || (findSource()?.is_built_in ? "0.1" : ""),
  };
}

export function useSource(source, mayDownload = false) {
  const isOther = source !== (used ?? state.source);
  used = source;
  change({ source });
  if (isOther && !findSource()?.is_built_in) useOwnData();
  return read(mayDownload);
}

// Until the data set is read, nothing can be trained on it.
function forget() {
  asked = {};
  change({ preview: null, findings: [], plan: null });
}

async function read(mayDownload) {
  clearTimeout(timer);
  const before = state.reading?.number;
  forget();
  change({ reading: { what: `Reading ${findSource()?.name ?? state.source}` } });
  // it may have ended
  if (before) ask("stop", { number: before }).catch(() => null);
  const values = describeSource();
  asked = values;
  try {
    const job = await ask("inspect", { ...values, may_download: mayDownload });
    // other data were chosen meanwhile
    if (asked !== values) return await ask("stop", { number: job.number }).catch(() => null);
    // also if the corrections are why it cannot be read
    changePart("labels", { isCorrected: job.is_corrected, size: undefined });
    change({ reading: { ...state.reading, number: job.number, downloadMb: job.download_mb } });
  } catch (error) {
    if (asked === values) change({ reading: { problem: error.message } });
  }
}

export function receiveData(event) {
  if (event.event === "recovered" && !state.preview) return useSource(state.source);
  const { reading } = state;
  if (!asked.source || !reading?.number || ![event.job, event.number].includes(reading.number)) return;
  if (event.event === "progress") change({ reading: { ...reading, ...event } });
  if (event.event === "job" && event.state === "failed") change({ reading: { problem: event.problem } });
  if (event.event === "data") showPreview(event.findings);
}

async function showPreview(findings) {
  const values = asked;
  try {
    const preview = await ask("preview", values);
    if (asked !== values) return; // other data were chosen meanwhile
    change({ preview, findings, reading: null });
    refreshNet();
    refreshPlan();
  } catch (error) {
    if (asked === values) change({ reading: { problem: error.message } });
  }
}

export function summarizeData() {
  const name = findSource()?.name ?? "";
  return state.preview ? `${name}, ${plural(countImages(), "image")}` : name;
}

function countImages() {
  return Object.values(state.preview.images).reduce((sum, size) => sum + size, 0);
}

// Why nothing can be trained on these data; null if it can.
export function findDataProblem() {
  const { preview } = state;
  if (!preview) return "Load a data set to train.";
  return preview.kind === "single-label" && preview.classes < 2 ? "Add a second class to train." : null;
}

export function DataStep() {
  const choose = ({ target }) => {
    forget();
    const name = findSource(target.value)?.name;
    change({ source: target.value, reading: { what: `Reading ${name}`, number: state.reading?.number } });
    clearTimeout(timer);
    timer = setTimeout(() => useSource(target.value), WAIT_MS);
  };
  const list = ({ name, source }) => html`<option value=${source}>${name}</option>`;
  const yours = state.sources.filter((known) => !known.is_built_in);
  return html`
    <div class="row">
      <label for="source">Data set</label>
      <select id="source" value=${state.source} onChange=${choose}>
        ${yours.length > 0 && html`<optgroup label="Your images">${yours.map(list)}</optgroup>`}
        <optgroup label="Built in">${state.sources.filter((known) => known.is_built_in).map(list)}</optgroup>
      </select>
      <button id="make" type="button" aria-expanded=${state.isMaking} aria-controls="making"
        onClick=${() => openClasses(!state.isMaking)}>Make your own classes</button>
    </div>
    <${Classes} />
    <div hidden=${state.isMaking}>
      <div id="data-view">${state.preview ? html`<${Preview} />` : html`<${Reading} />`}</div>
      <${Labels} />
      <${Loading} />
    </div>
  `;
}

function Reading() {
  const { what, done, total, downloadMb, problem } = state.reading ?? {};
  if (problem) return html`<${Problem} text=${withoutOptions(problem)} />`;
  if (downloadMb) {
    return html`<p>${state.source} is not on this machine yet. It has ${downloadMb} MB.</p>
      <button type="button" onClick=${() => useSource(state.source, true)}>Download ${downloadMb} MB</button>`;
  }
  const label = what ?? "Reading";
  const text = total ? `${label}: ${count(done)} of ${count(total)}` : `${label} …`;
  return html`<${Note}>${text}</${Note}><${Progress} label=${label} value=${total && done / total} />`;
}

function Preview() {
  const { images, shape, kind, classes, groups } = state.preview;
  const [channels, height, width] = shape;
  const outputs = kind === "regression" ? plural(classes, "number") : plural(classes, "class", "classes");
  const size = (split) => (images[split] ? count(images[split]) : "none");
  const splits = Object.keys(PURPOSES).map((split) => `${size(split)} ${PURPOSES[split]}`);
  const color = channels === 1 ? "gray" : "color";
  const more = classes - groups.length;
  return html`
    <p><strong>${plural(countImages(), "image")}, ${outputs}</strong>, ${width}×${height} px, ${color}</p>
    <p id="splits">${splits.join(", ")}</p>
    ${KINDS[kind] && html`<${Note}>${KINDS[kind]}</${Note}>`}
    <ul class="sheet" aria-label="Samples of each class">${groups.map(Group)}</ul>
    ${more > 0 && groups.length > 1 && html`<${Note}>and ${plural(more, "more class", "more classes")}</${Note}>`}
    <${Findings} />
  `;
}

function Group({ name, count: size, images }) {
  return html`<li>
    <div class="tiles">
      ${images.map(({ row, png }) => html`<${Picture} png=${png} alt=${`training image ${row} of ${name}`} />`)}
    </div>
    <span>${name} <span class="note">${count(size)}</span></span>
  </li>`;
}

function Findings() {
  const { findings } = state;
  if (!findings.length) return html`<p class="good">No problems found.</p>`;
  const list = ({ split, name }) => html`<li>${split ? `${name} (${split})` : name}</li>`;
  const show = ({ severity, message, images }) => html`<li class=${severity}>
    <strong>${WORDS[severity]}: </strong>${withoutOptions(message)}
    ${images.length > 0 && html`<${Details} summary="Which images"><ul>${images.map(list)}</ul></${Details}>`}
  </li>`;
  const isError = findings[0].severity === "error";
  const summary = `${plural(findings.length, "finding")} about these images`;
  return html`<${Details} key=${state.source} summary=${summary} open=${isError}>
    <ul class="findings">${findings.map(show)}</ul>
  </${Details}>`;
}

// What lamina says about data, without the sentences about options of its commands.
function withoutOptions(text) {
  const sentences = text.split(/(?<=[.;]) /u).filter((sentence) => !/(^| )--\w/u.test(sentence));
  return sentences.join(" ").replace(/;$/u, ".") || text;
}

function Loading() {
  const edit = (id, name, label, help, placeholder) => html`<label>
    ${label}
    <input id=${id} inputmode="decimal" placeholder=${placeholder} aria-describedby=${`${id}-help`}
      value=${state[name]} onInput=${({ target }) => change({ [name]: target.value })} onChange=${() => read(false)} />
    <span id=${`${id}-help`} class="note">${help}</span>
  </label>`;
  const val = describeSource().val || "as lamina chooses";
  return html`<${Details} summary="How to load it">
    <div class="fields loading">
      ${edit("size", "sizePx", "Image size in px", "Smaller images train faster.", "as lamina chooses")}
      ${edit("val", "val", "Part held out (val)", "0.1: a tenth, to check the training.", val)}
    </div>
    ${state.preview && html`<${Note}>Splits: ${state.preview.split_rule}</${Note}>`}
  </${Details}>`;
}

// Step 1: which images, what is in them, and their problems.

import { ask } from "./api.js";
import { Classes, openClasses } from "./classes.js";
import { Labels } from "./labels.js";
import { refreshNet, useOwnData } from "./net.js";
import { Button, Details, Note, Picture, Problem, Progress, count, plural } from "./parts.js";
import { html } from "./preact.js";
import { refreshPlan } from "./recipe.js";
import { change, changePart, isActive, state } from "./store.js";

const WORDS = { error: "Error", warning: "Warning", note: "Note" };
const PURPOSES = { train: "to learn from", val: "to check during training (val)", test: "to test" };
const KINDS = {
  "multi-label": "Each image may have several labels.",
  binary: "Each image is a yes or a no.",
  regression: "Each image has numbers to predict.",
};
const WAIT_MS = 300; // after the last change, because arrow keys pass other data sets
let timer = 0;
let asked = null; // how it is loaded; the response to another request is not wanted
let reader = null; // the number of the job that reads it
let isMissed = false; // what this job says may have come while the connection was lost
let mayLoad = false; // it may be downloaded
let early = null; // events until the studio has told this number
let lastSource = null; // that was read; arrow keys may pass others

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

// Until the data set is read, nothing can be trained on it.
function choose(source) {
  clearTimeout(timer);
  asked = null;
  early = null;
  if (reader) stop(reader);
  reader = null;
  isMissed = false;
  change({ source, preview: null, plan: null, reading: { what: `Reading ${findSource(source)?.name ?? source}` } });
}

function stop(number) {
  return ask("stop", { number }).catch(() => null); // it may have ended
}

export async function useSource(source, mayDownload = false) {
  const isOther = source !== (lastSource ?? state.source);
  lastSource = source;
  mayLoad = mayDownload;
  choose(source);
  if (isOther && !findSource()?.is_built_in) useOwnData();
  const values = describeSource();
  asked = values;
  early = [];
  try {
    const job = await ask("inspect", { ...values, may_download: mayDownload });
    if (asked !== values) return stop(job.number); // other data were chosen meanwhile
    reader = job.number;
    const events = early;
    early = null;
    changePart("reading", { downloadMb: job.download_mb });
    // also if the corrections are why it cannot be read
    changePart("labels", { isCorrected: job.is_corrected, size: undefined });
    for (const event of events) receiveData(event);
  } catch (error) {
    if (asked !== values) return;
    early = null;
    change({ reading: { problem: error.message } });
  }
}

// After a lost connection: the data set is read again, unless its job goes on.
function recover() {
  if (state.preview) return;
  if (early || isActive(state.jobs.get(reader))) isMissed = true;
  else useSource(state.source, mayLoad);
}

export function receiveData(event) {
  if (event.event === "recovered") return recover();
  early?.push(event);
  if (!reader || ![event.job, event.number].includes(reader)) return;
  if (event.event === "progress") changePart("reading", event);
  if (event.event === "data") {
    isMissed = false;
    showPreview(event);
  }
  if (event.event === "job" && event.state === "failed") change({ reading: { problem: event.problem } });
  if (event.event !== "job" || isActive(event)) return;
  reader = null;
  if (event.state === "done" && isMissed) useSource(state.source, mayLoad);
}

async function showPreview({ findings, sizes }) {
  const values = asked;
  try {
    const preview = await ask("preview", values);
    if (asked !== values) return; // other data were chosen meanwhile
    change({ preview: { ...preview, findings, sizes }, reading: {} });
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
  const { preview, reading } = state;
  if (reading.problem) return "Correct the problem under Images.";
  if (reading.downloadMb) return "Download the data set, under Images.";
  if (!preview) return `${reading.what} …`;
  return preview.kind === "single-label" && preview.classes < 2 ? "Add a second class to train." : null;
}

export function DataStep() {
  const { source: shown, sources, isMaking, preview, reading } = state;
  const pass = ({ target: { value } }) => {
    choose(value);
    timer = setTimeout(() => useSource(value), WAIT_MS);
  };
  const list = (isBuiltIn) =>
    sources
      .filter((known) => known.is_built_in === isBuiltIn)
      .map(({ name, source }) => html`<option value=${source}>${name}</option>`);
  return html`
    <div class="row">
      <label for="source">Data set</label>
      <select id="source" value=${shown} onChange=${pass}>
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
    <p id="splits">${splits.join(", ")}</p>
    ${KINDS[kind] && html`<${Note}>${KINDS[kind]}</${Note}>`}
    <${Note}>How many of each class to learn from:</${Note}>
    <ul class="sheet" aria-label="Samples of each class">${groups.map(Group)}</ul>
    ${more > 0 && groups.length > 1 && html`<${Note}>and ${plural(more, "more class", "more classes")}</${Note}>`}
    ${findings.length ? html`<${Findings} findings=${findings} />` : html`<p class="good">No problems found.</p>`}
  `;
}

function Group({ name, count: size, images }) {
  const draw = ({ row, png }) => html`<${Picture} png=${png} alt=${`training image ${row} of ${name}`} />`;
  return html`<li>
    <div class="tiles">${images.map(draw)}</div>
    <span>${name} <span class="note">${count(size)}</span></span>
  </li>`;
}

function Findings({ findings }) {
  const list = ({ split, name }) => html`<li>${split ? `${name} (${split})` : name}</li>`;
  const which = (shown, size) => (shown < size ? `The first ${shown} of ${count(size)} images` : "Which images");
  const show = ({ severity, message, images, size }) => html`<li class=${severity}>
    <strong>${WORDS[severity]}: </strong>${withoutOptions(message)}
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

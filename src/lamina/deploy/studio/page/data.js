// Step 1: which images, what is in them, and their problems.

import { ask } from "./api.js";
import { Classes } from "./classes.js";
import { Labels } from "./labels.js";
import { refreshNet, useOwnData } from "./net.js";
import { Details, Note, Picture, Problem, Progress, count, plural } from "./parts.js";
import { html } from "./preact.js";
import { refreshPlan } from "./recipe.js";
import { change, changePart, state } from "./store.js";

const WORDS = { error: "Error", warning: "Warning", note: "Note" };
const WAIT_MS = 300; // after the last change, because arrow keys pass other data sets
let timer = 0;
let asked = {}; // what is being read; the response to another request is not wanted

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
  const isOther = source !== state.source;
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
    changePart("labels", { isCorrected: job.is_corrected });
    change({ reading: { ...state.reading, number: job.number, downloadMb: job.download_mb } });
  } catch (error) {
    if (asked === values) change({ reading: { problem: error.message } });
  }
}

export function receiveData(event) {
  if (event.event === "recovered" && !state.preview) return useSource(state.source);
  const { reading } = state;
  if (!reading?.number || ![event.job, event.number].includes(reading.number)) return;
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
  if (!state.preview) return name;
  const images = Object.values(state.preview.images).reduce((sum, size) => sum + size, 0);
  return `${name}, ${plural(images, "image")}`;
}

export function DataStep() {
  const choose = ({ target }) => {
    forget();
    change({ source: target.value });
    clearTimeout(timer);
    timer = setTimeout(() => useSource(target.value), WAIT_MS);
  };
  return html`
    <div class="row">
      <label for="source">Data</label>
      <select id="source" value=${state.source} onChange=${choose}>
        ${state.sources.map(({ name, source }) => html`<option value=${source}>${name}</option>`)}
      </select>
    </div>
    <${Classes} />
    <div id="data-view">${state.preview ? html`<${Preview} />` : html`<${Reading} />`}</div>
    <${Labels} />
    <${Loading} />
  `;
}

function Reading() {
  const { what, done, total, downloadMb, problem } = state.reading ?? {};
  if (problem) return html`<${Problem} text=${problem} />`;
  if (downloadMb) {
    return html`<p>${state.source} is not on this machine yet, ${downloadMb} MB.</p>
      <button type="button" onClick=${() => useSource(state.source, true)}>Download ${downloadMb} MB</button>`;
  }
  const text = total ? `${what} ${count(done)} of ${count(total)}` : `${what} …`;
  return html`<${Note}>${text}</${Note}><${Progress} label=${what} value=${total && done / total} />`;
}

function Preview() {
  const { images, shape, kind, classes, groups, split_rule: rule } = state.preview;
  const splits = Object.entries(images).map(([split, size]) => `${count(size)} ${split}`);
  const [channels, height, width] = shape;
  const outputs = kind === "regression" ? plural(classes, "number") : plural(classes, "class", "classes");
  const color = channels === 1 ? "gray" : "color";
  const more = classes - groups.length;
  return html`
    <p>${splits.join(", ")}; ${height}×${width} px, ${color}; ${kind}, ${outputs}</p>
    <${Note}>Splits: ${rule}</${Note}>
    <ul class="sheet" aria-label="Samples of each class">
      ${groups.map((group) => html`<${Group} ...${group} />`)}
    </ul>
    ${more > 0 && groups.length > 1 && html`<${Note}>and ${more} more classes</${Note}>`}
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
  const show = ({ severity, message, images }) => html`<li class=${severity}>
    <strong>${WORDS[severity]}: </strong>${message}
    ${images.length > 0 &&
    html`<${Details} summary="Which images">
      <ul>
        ${images.map(({ split, name }) => html`<li>${split ? `${name} (${split})` : name}</li>`)}
      </ul>
    </${Details}>`}
  </li>`;
  return html`<${Details} summary=${`${plural(findings.length, "finding")} about this data`} open=${findings[0].severity === "error"}>
    <ul class="findings">${findings.map(show)}</ul>
  </${Details}>`;
}

function Loading() {
  const edit = (name) => ({ target }) => {
    change({ [name]: target.value });
    read(false);
  };
  return html`<${Details} summary="How to load it">
    <div class="fields">
      <label>Image size in px <input id="size" inputmode="numeric" placeholder="as lamina chooses"
        value=${state.sizePx} onChange=${edit("sizePx")} /></label>
      <label>Fraction of train held out for val <input id="val" inputmode="decimal"
        placeholder=${describeSource().val || "as lamina chooses"} value=${state.val} onChange=${edit("val")} /></label>
    </div>
  </${Details}>`;
}

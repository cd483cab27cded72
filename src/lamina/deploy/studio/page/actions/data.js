// Actions on data sets: choose, download, read and show them.

import { ask } from "../api.js";
import { change, changePart, describeSource, findSource, isActive, state } from "../state.js";
import { refreshNet, useOwnData } from "./net.js";
import { refreshPlan } from "./plan.js";

const WAIT_MS = 300; // after the last change, because arrow keys pass other data sets
let timer = 0;
let asked = null; // how it is loaded; the response to another request is not wanted
let reader = null; // the number of the job that reads it
let isMissed = false; // what this job says may have come while the connection was lost
let mayLoad = false; // it may be downloaded
let early = null; // events until the studio has told this number
let lastSource = null; // that was read; arrow keys may pass others

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

// A data set that is read unless another one is passed to soon, by arrow keys.
export function passSource(source) {
  choose(source);
  timer = setTimeout(() => useSource(source), WAIT_MS);
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

// Why nothing can be trained on these data; null if it can.
export function findDataProblem() {
  const { preview, reading } = state;
  if (reading.problem) return "Correct the problem under Images.";
  if (reading.downloadMb) return "Download the data set, under Images.";
  if (!preview) return `${reading.what} …`;
  return preview.kind === "single-label" && preview.classes < 2 ? "Add a second class to train." : null;
}

// What the parts of the page share: the state that the studio sent, the choices made on the page,
// and who must know.

export const state = {
  presets: [],
  layers: [],
  fields: [],
  fractions: [], // the metrics that are shown as percentages
  data: [],
  runs: [],
  jobs: new Map(),
};

// The data set, the net, the name of the run that was selected last, the run that is shown (another
// one until that is read), its tab, and the runs to compare.
export const chosen = {
  source: "",
  preview: null,
  net: { text: "", preset: "", problem: null },
  name: null,
  run: null,
  tab: "look",
  compared: new Set(),
};

const listeners = new EventTarget();

export function announce(name, detail) {
  listeners.dispatchEvent(new CustomEvent(name, { detail }));
}

export function listen(name, react) {
  listeners.addEventListener(name, (event) => react(event.detail));
}

// The newest job that trains a run; it may have ended.
export function findJob(run) {
  return [...state.jobs.values()].filter((job) => job.run === run).at(-1);
}

export function isActive(job) {
  return Boolean(job) && ["queued", "running"].includes(job.state);
}

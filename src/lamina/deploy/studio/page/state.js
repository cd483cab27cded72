// The state of the page: one value, which actions change and components draw. Data flows one way:
// a click or an event calls an action, the action calls `change`, and the page is drawn again.

export const state = {
  // From the studio (`api/state`), completed by events.
  presets: [],
  layers: [],
  fields: [],
  fractions: [], // the metrics that are shown as percentages
  sources: [],
  runs: [],
  jobs: new Map(), // by number
  documentation: "", // its address, if the package knows it
  glossary: new Map(), // definitions by term

  // The page itself.
  connection: { message: "Loading …" }, // and isLost, needsToken, isTried (a token was typed)
  step: "data", // the step that is open where only one has space: data, net, training or runs
  tab: "training", // of the selected run: training, look, compare, try or take

  // Step 1, Images.
  source: "",
  sizePx: "", // as typed; empty: as lamina chooses
  val: "",
  reading: {}, // of the data set, until then: {what, done, total, downloadMb, problem}
  preview: null, // of the data set and its problems, once it is read
  isMaking: false, // classes of one's own
  // of classes.js; `text`: the name as typed, `recorded`: the source of the last images from the webcam
  sets: { name: "my-images", text: "", cards: [] },
  labels: { choices: {} }, // the state of labels.js

  // Step 2, Net. Without layers that can be read, `cards` are the last that could.
  // `typed`: the text as it is being typed, if it is. `filledTime`: the time limit that choosing it filled in.
  net: {
    text: "",
    filledTime: "",
    typed: null,
    preset: "",
    isChosen: false,
    problem: null,
    cards: [],
    parameters: 0,
    multiplyAdds: 0,
  },
  openCard: null, // its id
  forward: null, // what the untrained net makes of an example image: {key, row, image, drawings}

  // Step 3, Training: texts as typed; an empty field means the recipe's value.
  values: {}, // of fields of the recipe, by name
  recipeName: "",
  time: "",
  runName: "",
  plan: null, // what Train would do: {fields, reason, images, problem}
  isStarting: false,
  trainingProblem: null,

  // The selected run. `run` is the one that is drawn: another one until that is read.
  selected: null, // a name
  run: null,
  compared: new Set(), // names
  progress: new Map(), // of trainings: the last event, by number of the job
  base: null, // the run whose settings were put into the steps; Train lists what differs from it
  runsProblem: null,
  runProblem: null, // of the selected run
  making: {}, // by run and file to take away, the number of the job that makes it
  exports: {}, // by that number, how the file compares with the run

  // `told`: what was set up, in words; `filled`: fields of the form that a lesson filled in, by name.
  lessons: { at: 0, isOpen: false, answers: {}, told: "", filled: null, problem: null },
};

export const NARROW = matchMedia("(max-width: 899px)"); // as in page.css

let draw = () => null;
let frame = 0;

// Calls `view` now, and after each change, at most once for a frame of the screen.
export function mount(view) {
  draw = view;
  draw();
}

export function change(fields) {
  Object.assign(state, fields);
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

// Changes fields of a part, such as `changePart("net", { text })`.
export function changePart(part, fields) {
  change({ [part]: { ...state[part], ...fields } });
}

// The newest job that trains a run; it may have ended.
export function findJob(run) {
  return [...state.jobs.values()].filter((job) => job.run === run).at(-1);
}

export function isActive(job) {
  return ["queued", "running"].includes(job?.state);
}

// The selected run, unless it is still being read.
export function findSelected() {
  return state.run?.name === state.selected ? state.run : null;
}

// The running training and those that wait.
export function listTrainings() {
  return [...state.jobs.values()].filter((job) => job.run && isActive(job));
}

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

// Whether nothing of a training is left to do, also after Finish now.
export function hasEnded(run) {
  return run.is_finished || run.score !== null;
}

// The fields that were filled in, by name; lamina's choice has none.
export function readFields() {
  if (state.net.isChosen) return {};
  const filled = Object.entries(state.values).map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(filled.filter(([, value]) => value));
}

// What the steps say: the images, the net and the fields.
export function readSteps() {
  const { text, preset, isChosen } = state.net;
  const fields = { ...readFields(), recipe: preset && state.recipeName, time: state.time.trim() };
  return { ...describeSource(), net: isChosen ? "" : preset || text, fields };
}

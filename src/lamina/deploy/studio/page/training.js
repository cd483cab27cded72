// Step 3: starts a training, and completes the selected run by the events of its job.

import { ask } from "./api.js";
import { describeSource, findDataProblem } from "./data.js";
import { Changes } from "./further.js";
import { settleNet } from "./net.js";
import { Note, Problem, plural } from "./parts.js";
import { html } from "./preact.js";
import { RecipeForm, readFields, setFields } from "./recipe.js";
import { receiveRuns, refreshRuns, reloadRun, selectRun } from "./runs.js";
import { change, findSelected, isActive, state } from "./store.js";

const MOST_STEPS = 800; // whose losses are drawn
const NARROW = matchMedia("(max-width: 899px)"); // as in page.css

export function summarizeTraining() {
  const epochs = Number(readFields().epochs ?? state.plan?.fields?.epochs);
  if (state.time) return `within ${state.time}`;
  return epochs ? plural(epochs, "epoch") : "";
}

export function TrainingStep() {
  const { isStarting, trainingProblem, net } = state;
  const reason = net.problem ? "Correct the error in the net to train." : findDataProblem();
  return html`
    <${RecipeForm} />
    <${Changes} />
    <div class="row actions">
      <button id="train" class="primary" type="button" aria-describedby="train-note"
        disabled=${isStarting || Boolean(reason)} onClick=${train}>Train</button>
    </div>
    <${Note} id="train-note">${reason}</${Note}>
    <${Problem} id="training-problem" text=${trainingProblem} />
  `;
}

export async function train() {
  if (state.isStarting) return;
  change({ isStarting: true, trainingProblem: null });
  try {
    await settleNet();
    const { text, preset, isChosen, problem } = state.net;
    if (problem) return;
    const job = await ask("train", {
      ...describeSource(),
      net: isChosen ? "" : preset || text,
      fields: { ...readFields(), recipe: preset ? state.recipeName : "", time: state.time.trim() },
      name: state.runName.trim(),
    });
    change({ runName: "", base: null, tab: "training", step: NARROW.matches ? "" : "training" });
    await selectRun(job.run);
    // the button is no longer in view
    if (NARROW.matches) document.getElementById("run-title")?.focus();
  } catch (error) {
    change({ trainingProblem: error.message });
  } finally {
    change({ isStarting: false });
  }
}

// Pauses, resumes, cancels or finishes a run.
export async function act(action, run, more = {}) {
  change({ runProblem: null });
  await ask(action, { run, ...more }).catch((error) => change({ runProblem: error.message }));
}

// Fills in what a diagnosis advises.
export function applyChange(values) {
  const texts = Object.entries(values).map(([name, value]) => [name, String(value)]);
  setFields(Object.fromEntries(texts));
  change({ step: "training" });
  // once it is drawn
  requestAnimationFrame(() => document.getElementById(`field-${texts[0][0]}`)?.focus());
}

export function receiveTraining(event) {
  const run = state.run;
  if (event.event === "runs") receiveRuns(event);
  if (event.event === "job" && event.run) receiveJob(event);
  if (["progress", "step", "epoch"].includes(event.event) && event.run)
    change({ progress: new Map(state.progress).set(event.job, { ...state.progress.get(event.job), ...event }) });
  // another page may have started it; it has a folder now
  if (event.event === "epoch" && state.runs.every(({ name }) => name !== event.run)) refreshRuns();
  if (!run || event.run !== run.name) return;
  if (event.event === "remark") change({ run: { ...run, remark: event.text } });
  if (event.event === "diagnosis") receiveDiagnosis(event, run);
  if (!["step", "epoch"].includes(event.event)) return;
  // it has a folder now, which says how many epochs there will be
  if (!run.net && !run.isAsked) reloadRun(run.name);
  (event.event === "step" ? receiveStep : receiveEpoch)(event, { ...run, isAsked: true });
}

async function receiveJob(job) {
  const { progress, run } = state;
  if (isActive(job)) return refreshRuns();
  change({ progress: new Map([...progress].filter(([number]) => number !== job.number)) });
  if (job.run !== run?.name) return refreshRuns();
  await reloadRun(job.run);
  // images made on this page are there to be tried
  const isMade = findSelected()?.score && state.run.source === state.sets.made;
  if (isMade && job.run === state.selected && state.tab === "training") change({ tab: "try" });
}

function receiveStep(event, run) {
  const at = event.epoch - 1 + event.step / event.steps;
  const all = [...run.steps, { at, loss: event.loss, seconds: performance.now() / 1000 }];
  const steps = all.length > MOST_STEPS ? all.filter((_, place) => place % 2) : all;
  change({ run: { ...run, steps } });
}

function receiveEpoch(event, run) {
  const now = performance.now() / 1000;
  // with evaluation and saving
  const pace = run.seen ? ((run.pace ?? now - run.seen) + now - run.seen) / 2 : run.pace;
  const rows = [...run.rows.filter((row) => row.epoch < event.epoch), event];
  change({ run: { ...run, rows, pace, seen: now, planned: event.epochs ?? run.planned } });
}

// Without an epoch yet, a diagnosis appears when the run is read again.
function receiveDiagnosis(event, run) {
  const last = run.rows.at(-1);
  if (!last) return;
  // else it was read with its epoch
  const others = (last.diagnoses ?? []).filter(({ finding }) => finding !== event.finding);
  const rows = [...run.rows.slice(0, -1), { ...last, diagnoses: [...others, event] }];
  change({ run: { ...run, rows } });
}

// Actions on trainings: start, stop and repeat them, and receive their events.

import { ask } from "../api.js";
import {
  NARROW,
  change,
  changePart,
  describeSource,
  findSelected,
  findSource,
  isActive,
  readSteps,
  state,
} from "../state.js";
import { useSource } from "./data.js";
import { settleNet, useText } from "./net.js";
import { setFields, useRecipe } from "./plan.js";
import { receiveDeleted, refreshRuns, reloadRun, selectRun } from "./runs.js";

// Puts a run's data, net and recipe into the steps.
export async function copySettings(run) {
  const { name, source, data, size_px: size, val } = run;
  const isKnown = Boolean(findSource(source));
  const problem = isKnown ? null : `The images of ${name}, ${data}, are not in the list. Choose others under Images.`;
  change({ runProblem: problem, step: isKnown ? "net" : "data" });
  const before = JSON.stringify(describeSource());
  if (isKnown) change({ sizePx: String(size ?? ""), val: String(val ?? "") });
  if (isKnown && JSON.stringify({ ...describeSource(), source }) !== before) useSource(source);
  await useText(run.text);
  await settleNet();
  await useRecipe(run.recipe);
  change({ base: { ...run, text: state.net.text } });
  document.getElementById(isKnown ? "net-title" : "data-title").focus();
}

const MOST_STEPS = 800; // whose losses are drawn

export async function train() {
  if (state.isStarting) return;
  change({ isStarting: true, trainingProblem: null });
  try {
    await settleNet();
    if (state.net.problem) return;
    const job = await ask("train", { ...readSteps(), name: state.runName.trim() });
    change({ runName: "", base: null, tab: "training", step: NARROW.matches ? "" : "training" });
    await selectRun(job.run);
    if (NARROW.matches) document.getElementById("run-title")?.focus(); // the button is no longer in view
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
  const names = Object.keys(values);
  setFields(Object.fromEntries(names.map((name) => [name, String(values[name])])));
  change({ step: "training" });
  requestAnimationFrame(() => document.getElementById(`field-${names[0]}`)?.focus()); // once it is drawn
}

export function receiveTraining(event) {
  const { run } = state;
  if (event.event === "deleted") return receiveDeleted(event);
  if (!event.run) return; // it is about no training
  if (event.event === "job") receiveJob(event);
  const isTrained = ["step", "epoch"].includes(event.event);
  if (isTrained || ["progress", "trying"].includes(event.event))
    change({ progress: new Map(state.progress).set(event.job, { ...state.progress.get(event.job), ...event }) });
  // another page may have started it; it has a folder now
  if (event.event === "epoch" && state.runs.every(({ name }) => name !== event.run)) refreshRuns();
  if (event.run !== run?.name) return;
  if (event.event === "remark") change({ run: { ...run, remark: event.text } });
  if (event.event === "diagnosis") receiveDiagnosis(event, run);
  if (!isTrained) return;
  // it has a folder now, which says how many epochs there will be
  if (!run.net && !run.isAsked) reloadRun(run.name);
  const seconds = performance.now() / 1000;
  const news = event.event === "step" ? receiveStep(event, run, seconds) : receiveEpoch(event, run, seconds);
  change({ run: { ...run, ...news, isAsked: true } });
}

async function receiveJob(job) {
  if (isActive(job)) return refreshRuns();
  change({ progress: new Map([...state.progress].filter(([number]) => number !== job.number)) });
  if (job.run !== state.run?.name) return refreshRuns();
  changePart("run", { isEnding: true }); // until it is read again
  await reloadRun(job.run);
  // images made on this page are there to be tried
  const isMade = findSelected()?.score && state.run.source === state.sets.made;
  if (isMade && job.run === state.selected && state.tab === "training") change({ tab: "try" });
}

function receiveStep(event, run, seconds) {
  const at = event.epoch - 1 + event.step / event.steps;
  const steps = [...run.steps, { at, loss: event.loss, seconds }];
  return { steps: steps.length > MOST_STEPS ? steps.filter((_, place) => place % 2) : steps };
}

function receiveEpoch(event, run, seconds) {
  const last = seconds - run.seen; // with evaluation and saving
  const pace = run.seen ? ((run.pace ?? last) + last) / 2 : run.pace;
  const rows = [...run.rows.filter((row) => row.epoch < event.epoch), event];
  return { rows, pace, seen: seconds, planned: event.epochs ?? run.planned };
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

// Actions on runs: read, select, compare and delete them.

import { ask } from "../api.js";
import { plain } from "../parts.js";
import { change, findJob, findSelected, isActive, state } from "../state.js";

const REFRESH_MS = 5000; // until a run that could not be read is read again
let turn = 0; // of the last request for the selected run, whose response counts

export const showTools = () => document.querySelector("#run-list .tools")?.scrollIntoView({ block: "nearest" });

const tellProblem = (error) => change({ runsProblem: error.message });

export async function refreshRuns() {
  const runs = await ask("runs").catch(tellProblem);
  if (runs) change({ runs });
}

export async function selectRun(name) {
  change({ selected: name, runProblem: null });
  await reloadRun(name);
}

// Reads a run, if it is selected and stays so; one that has just started may have no folder yet.
export async function reloadRun(name, isRetry = false) {
  if (name !== state.selected) return refreshRuns();
  const asked = ++turn;
  const isWanted = () => name === state.selected && asked === turn;
  await refreshRuns();
  let run = { name, rows: [], planned: null, is_finished: false, score: null };
  try {
    if (state.runs.some((known) => known.name === name)) run = await ask("run", { run: name });
  } catch (error) {
    if (isWanted()) change({ runProblem: error.message });
    setTimeout(() => isWanted() && reloadRun(name, true), REFRESH_MS);
    return;
  }
  const others = await readOthers(run);
  if (!isWanted()) return;
  const { rows: rowsBefore = [], steps = [], pace, seen } = findSelected() ?? {};
  const isAhead = isActive(findJob(name)) && rowsBefore.length > run.rows.length;
  const rows = isAhead ? rowsBefore : run.rows;
  if (isRetry) change({ runProblem: null });
  change({ run: { ...run, others, rows, steps, pace, seen } });
}

// The runs whose curves are shown with those of a run: its parent, and all that are ticked.
async function readOthers({ name, parent }) {
  const ticked = [...state.compared].filter((other) => state.runs.some((run) => run.name === other));
  const names = new Set(parent ? [parent, ...ticked] : ticked);
  names.delete(name);
  return (await Promise.all([...names].map((other) => ask("run", { run: other }).catch(() => [])))).flat();
}

export async function compare(name, isCompared) {
  const compared = new Set(state.compared);
  compared[isCompared ? "add" : "delete"](name);
  change({ compared });
  const { run } = state;
  if (!run) return;
  const others = await readOthers(run);
  if (run.name === state.run?.name && compared === state.compared) change({ run: { ...state.run, others } });
}

export async function remove(name) {
  if (!confirm(`Delete ${plain(name)}, with its net and its results? This cannot be undone.`)) return;
  change({ runsProblem: null });
  try {
    const { files } = await ask("delete-run", { run: name });
    if (files.length) change({ runsProblem: `These files in the folder of ${name} stay: ${files.join(", ")}.` });
  } catch (error) {
    tellProblem(error);
  }
}

// A run was deleted, by this page or another one.
export async function receiveDeleted({ run }) {
  const compared = new Set([...state.compared].filter((name) => name !== run));
  const jobs = new Map([...state.jobs].filter(([, job]) => job.run !== run || isActive(job)));
  const place = state.runs.findIndex(({ name }) => name === run);
  change({ compared, jobs, base: state.base?.name === run ? null : state.base });
  await refreshRuns();
  if (state.selected === run) await selectNear(place);
}

// After a lost connection, when runs may have been deleted.
export async function recoverRuns() {
  const names = new Set([...state.runs.map(({ name }) => name), ...[...state.jobs.values()].map(({ run }) => run)]);
  const compared = new Set([...state.compared].filter((name) => names.has(name)));
  change({ compared, base: names.has(state.base?.name) ? state.base : null });
  if (state.selected === null) return;
  if (names.has(state.selected)) await reloadRun(state.selected);
  else await selectNear(0);
}

// Selects the run at a place of the list, or the last one.
async function selectNear(place) {
  const readable = state.runs.filter(({ problem }) => !problem);
  const next = readable.at(Math.max(0, Math.min(place, readable.length - 1))); // its neighbor
  if (next) await selectRun(next.name);
  else change({ selected: null, run: null });
}

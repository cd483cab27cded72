// The runs: a list with what came from what, and the selected one.

import { ask } from "./api.js";
import { html } from "./preact.js";
import { change, findJob, isActive, state } from "./store.js";

const RETRY_MS = 5000;

export async function refreshRuns() {
  const runs = await ask("runs").catch((error) => change({ runsProblem: error.message }));
  if (runs) change({ runs });
}

export async function selectRun(name) {
  change({ selected: name, runsProblem: null });
  await reloadRun(name);
}

// After a lost connection.
export function recoverRuns() {
  if (state.selected) reloadRun(state.selected);
}

// Reads a run, unless another one was selected meanwhile; a run that has just started may have no
// folder yet.
export async function reloadRun(name) {
  await refreshRuns();
  const isHere = state.runs.some((known) => known.name === name);
  let run = { name, rows: [], planned: null, is_finished: false, score: null, checkpoints: [] };
  try {
    if (isHere) run = await ask("run", { run: name });
  } catch (error) {
    setTimeout(() => name === state.selected && reloadRun(name), RETRY_MS);
    if (name === state.selected) change({ runsProblem: error.message });
    return;
  }
  const others = await readOthers(run);
  if (name !== state.selected) return;
  const before = state.run?.name === name ? state.run : {};
  const isAhead = isActive(findJob(name)) && before.rows?.length > run.rows.length;
  const rows = isAhead ? before.rows : run.rows;
  const { steps = [], pace, seen, at, job } = before;
  change({ run: { ...run, others, rows, steps, pace, seen, at, job } });
}

// The runs whose curves are shown with those of a run: its parent, and the ticked ones.
async function readOthers(run) {
  const names = new Set([run.parent ?? [], ...listCompared(run)].flat());
  return (await Promise.all([...names].map((name) => ask("run", { run: name }).catch(() => [])))).flat();
}

// The runs that are ticked, besides this one.
export function listCompared({ name: base }) {
  return [...state.compared].filter((name) => name !== base && state.runs.some((run) => run.name === name));
}

export function RunsPanel() {
  return html`<ul id="runs" aria-label="Runs">
    ${state.runs.map(
      ({ name, score }) =>
        html`<li><button type="button" aria-pressed=${name === state.selected} onClick=${() => selectRun(name)}>${name} ${score}</button></li>`,
    )}
  </ul>`;
}

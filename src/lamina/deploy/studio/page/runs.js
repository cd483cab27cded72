// The runs: a tree of what came from what, and the selected one.

import { ask } from "./api.js";
import { Button, Note, Problem, focusLater, plain, plural } from "./parts.js";
import { html, useLayoutEffect, useMemo, useState } from "./preact.js";
import { hasEnded } from "./progress.js";
import { NARROW, change, findJob, findSelected, isActive, state } from "./store.js";

const REFRESH_MS = 5000; // until a run that could not be read is read again
const MANY_RUNS = 3; // more can be sorted and filtered
const FEW = "Every training is a run: a folder that stays, with its net, its settings and its result.";
const MANY = "Tick two or more runs to draw their curves together, and to compare them.";
let turn = 0; // of the last request for the selected run, whose response counts
const showTools = () => document.querySelector("#run-list .tools")?.scrollIntoView({ block: "nearest" });
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

// The runs whose curves are shown with those of a run: its parent and, if it is ticked, the others.
async function readOthers(run) {
  const names = new Set([run.parent ?? [], state.compared.has(run.name) ? listCompared(run) : []].flat());
  return (await Promise.all([...names].map((name) => ask("run", { run: name }).catch(() => [])))).flat();
}

// The runs that are ticked, besides this one.
function listCompared({ name: base }) {
  return [...state.compared].filter((name) => name !== base && state.runs.some((run) => run.name === name));
}

async function compare(name, isCompared) {
  const compared = new Set(state.compared);
  compared[isCompared ? "add" : "delete"](name);
  change({ compared });
  const { run } = state;
  if (!run) return;
  const others = await readOthers(run);
  if (run.name === state.run?.name && compared === state.compared) change({ run: { ...state.run, others } });
}

async function remove(name) {
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

export function summarizeRuns() {
  const [best] = state.runs.filter(({ score }) => score).sort((a, b) => rate(b) - rate(a));
  return plural(state.runs.length, "run") + (best ? `, best ${best.score_text}` : "");
}

export function RunsPanel() {
  const [order, setOrder] = useState("newest");
  const [words, setWords] = useState("");
  const { runs, jobs, selected, compared, runsProblem, step } = state;
  // not drawn again with each step of a training
  const list = useMemo(() => drawList(order, words), [order, words, runs, jobs, selected, compared]);
  useLayoutEffect(showTools, [step]);
  return html`
    <${Note}>${runs.length > 1 ? MANY : FEW}</${Note}>
    <div class="row finder" hidden=${runs.length <= MANY_RUNS}>
      <select aria-label="Order" value=${order} onChange=${({ target }) => setOrder(target.value)}>
        <option value="newest">newest first</option>
        <option value="best">best first</option>
      </select>
      <input type="search" placeholder="find" aria-label="Find runs" value=${words}
        onInput=${({ target }) => setWords(target.value)} />
    </div>
    <${Problem} id="runs-problem" text=${runsProblem} />
    ${list}
  `;
}

// The runs, and before them those without a folder, which wait or failed.
function listRuns() {
  const hasFolder = ({ run }) => state.runs.some(({ name }) => name === run);
  const isShown = (job) => job.run && findJob(job.run) === job && (isActive(job) || job.state === "failed");
  const jobs = [...state.jobs.values()].filter((job) => isShown(job) && !hasFolder(job));
  return [...jobs.map((job) => ({ name: job.run, problem: isActive(job) ? "" : job.problem })), ...state.runs];
}

function drawList(order, words) {
  const text = words.toLowerCase().trim();
  const has = ({ name, net, data }) => [name, net, data].join(" ").toLowerCase().includes(text);
  const runs = listRuns().filter(has);
  if (!runs.length) return html`<${Note}>${words ? "No run has these words." : "There are no runs yet."}</${Note}>`;
  if (order === "best") runs.sort((a, b) => rate(b) - rate(a));
  const names = new Set(order === "best" ? [] : runs.map(({ name }) => name));
  const byParent = Map.groupBy(runs, ({ parent }) => (names.has(parent) ? parent : null));
  const draw = (run) => {
    const children = byParent.get(run.name)?.map(draw);
    return html`<li key=${run.name}><${Row} run=${run} />${children && html`<ul>${children}</ul>`}</li>`;
  };
  return html`<ul id="run-list" aria-label="Runs">${byParent.get(null).map(draw)}</ul>`;
}

// Of errors, the smaller one is better.
function rate({ score_value: value = null, is_fraction: isFraction }) {
  if (value === null) return -Infinity;
  return isFraction ? value : -value;
}

function Row({ run }) {
  const { name, net, data, parent, problem } = run;
  const remover = html`<${Button} small onClick=${() => remove(name)}>Delete</${Button}>`;
  if (problem) return html`<p class="problem">${name}: ${problem}</p>${remover}`;
  const isSelected = state.selected === name;
  const select = () => {
    if (!isSelected || !findSelected()) selectRun(name);
    if (!NARROW.matches) return;
    focusLater("run-title"); // it is below the list
    requestAnimationFrame(() => document.getElementById("results").scrollIntoView());
  };
  const from = parent ? ` from ${parent}` : "";
  return html`<div class="run-row">
      <input type="checkbox" disabled=${!net} aria-label=${`compare ${name}`}
        checked=${state.compared.has(name)} onChange=${({ target }) => compare(name, target.checked)} />
      <${Button} class="run" aria-pressed=${isSelected} onClick=${select}>
        <strong>${name}</strong> <span>${summarizeRun(run)}</span>
        ${net && html`<span class="note">${net} on ${data}${from}</span>`}
      </${Button}>
    </div>
    ${isSelected && net && html`<div class="tools">${remover}</div>`}`;
}

function summarizeRun(run) {
  const { name, net, score, score_text: text, is_better: isBetter, epochs, planned } = run;
  const job = findJob(name);
  if (isActive(job)) return job.state === "queued" ? "waiting" : "running";
  if (!net) return "";
  if (score) return `${isBetter ? "✓ " : ""}${text}`;
  if (hasEnded(run)) return "no score";
  const word = { failed: "stopped", done: "testing" }[job?.state] ?? "paused";
  return `${word}, ${planned ? `${epochs} of ` : ""}${plural(planned ?? epochs, "epoch")}`;
}

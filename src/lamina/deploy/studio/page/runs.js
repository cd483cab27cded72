// The runs: a tree of what came from what, the selected one, and branches.

import { ask } from "./api.js";
import { use } from "./data.js";
import { find, fill, make, redraw, tell } from "./elements.js";
import { useText } from "./net.js";
import { readFields, setFields } from "./recipe.js";
import { announce, chosen, findJob, isActive, listen, state } from "./shared.js";

const REFRESH_MS = 5000; // least time between two looks at the checkpoints of a training
const compared = new Set();
let asked = 0; // number of the last selection, which counts
let refreshed = 0;

export function startRuns() {
  find("branch").addEventListener("click", branch);
  find("edit").addEventListener("click", edit);
  listen("epoch", refreshCheckpoints);
  listen("runs-changed", refresh);
  listen("run", showCheckpoints);
  showTree();
}

export function listCompared() {
  return [...compared].filter((name) => state.runs.some((run) => run.name === name));
}

async function refresh() {
  try {
    state.runs = await ask("runs");
    showTree();
  } catch (error) {
    tell(find("runs-problem"), error.message);
  }
}

async function refreshCheckpoints(run) {
  if (performance.now() - refreshed < REFRESH_MS) return;
  refreshed = performance.now();
  const found = await ask("run", { run: run.name }).catch(() => null);
  if (!found || chosen.run?.name !== run.name) return;
  Object.assign(chosen.run, { checkpoints: found.checkpoints, steps_per_epoch: found.steps_per_epoch });
  showCheckpoints(chosen.run);
}

// Selects a run and reads its files; a run that has just started may have none yet.
export async function select(name, isFresh = false) {
  const before = chosen.run, own = ++asked;
  if (before?.name === name && !isFresh) return;
  tell(find("runs-problem"), null);
  await refresh();
  let run = { name, rows: [], planned: null, is_finished: false, score: null, checkpoints: [] };
  try { // a run that has just started may have no folder yet
    if (state.runs.some((one) => one.name === name)) run = await ask("run", { run: name });
  } catch (error) {
    tell(find("runs-problem"), error.message);
  }
  if (before?.name === name) {
    run.steps = before.steps;
    run.isAsked = before.isAsked;
    if (isActive(findJob(name)) && before.rows.length > run.rows.length) run.rows = before.rows;
  }
  if (run.parent) run.others = [await ask("run", { run: run.parent }).catch(() => null)].filter(Boolean);
  if (own !== asked) return; // another one was selected meanwhile
  chosen.run = run;
  showTree();
  announce("run", run);
}

function showTree() {
  const byParent = Map.groupBy(state.runs, (run) => (state.runs.some(({ name }) => name === run.parent) ? run.parent : null));
  const branchOf = (parent) => (byParent.get(parent) ?? []).map((run) => make("li", {}, showRow(run),
    byParent.has(run.name) ? make("ul", {}, ...branchOf(run.name)) : null));
  const rows = branchOf(null);
  redraw(find("runs"), ...(rows.length ? rows : [make("li", { className: "note" }, "There are no runs yet. Press Train.")]));
}

function showRow(run) {
  if (run.problem) return make("div", { className: "problem" }, `${run.name}: ${run.problem}`);
  const job = findJob(run.name);
  const progress = isActive(job) ? job.state === "queued" ? "waiting" : "running" : run.is_finished ? "" : `unfinished, ${run.epochs}/${run.planned ?? "?"} epochs`;
  const from = run.parent ? ` from ${run.parent}${run.parent_epoch === null ? "" : ` after epoch ${run.parent_epoch}`}` : "";
  return make("div", { className: "run-row" },
    make("input", { type: "checkbox", checked: compared.has(run.name), ariaLabel: `compare ${run.name}`, title: "compare",
      data: { key: `compare ${run.name}` }, on: { change: (event) => {
        compared[event.target.checked ? "add" : "delete"](run.name);
        announce("compared");
      } } }),
    make("button", { type: "button", className: "run", ariaPressed: String(chosen.run?.name === run.name),
      data: { key: run.name }, on: { click: () => select(run.name) } },
      make("strong", {}, run.name), make("span", {}, run.score ?? progress),
      make("span", { className: "note" }, `${run.net} on ${run.data}${from}${run.score && progress ? `; ${progress}` : ""}`)));
}

function showCheckpoints(run) {
  const perEpoch = run?.steps_per_epoch ?? 1;
  const found = (run?.checkpoints ?? []).map((one) => [JSON.stringify(one), `epoch ${Number((one.steps / perEpoch).toFixed(2))}`]);
  fill(find("checkpoint"), found);
  find("checkpoint").disabled = find("branch").disabled = !found.length;
  find("edit").disabled = !run?.text;
}

// Shows the selected run's net and recipe above, and its data if they are in the list.
async function edit() {
  const { text, recipe, source } = chosen.run;
  if (state.data.some((one) => one.source === source)) await use(source);
  await useText(text);
  // The fields that are as usual stay empty, and show it.
  setFields(Object.fromEntries(state.fields.map(({ name, default: usual }) => [name, recipe[name] === usual ? "" : recipe[name]])));
  find("net").scrollIntoView({ block: "start" });
}

async function branch() {
  tell(find("branch-problem"), null);
  try {
    const net = find("with-net").checked ? chosen.net.text : "";
    const job = await ask("branch", { run: chosen.run.name, ...JSON.parse(find("checkpoint").value), fields: readFields(), net });
    await select(job.run, true);
    find("training").scrollIntoView({ block: "start" });
  } catch (error) {
    tell(find("branch-problem"), error.message);
  }
}

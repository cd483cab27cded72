// The runs: a tree of what came from what, the selected one, and how to continue from it.

import { ask } from "./api.js";
import { use } from "./data.js";
import { attempt, find, fill, make, redraw, tell } from "./elements.js";
import { useText } from "./net.js";
import { makeField, readFields, useRecipe } from "./recipe.js";
import { announce, chosen, findJob, isActive, listen, state } from "./shared.js";

const REFRESH_MS = 5000; // least time between two looks at the checkpoints of a training
let picked = ""; // the checkpoint that a person has chosen
let refreshed = 0;
let isContinuing = false; // a run that continues, which is asked for
let filled = ""; // the run whose settings can be changed
const tellProblem = (error) => tell(find("runs-problem"), error.message);

export function startRuns() {
  find("continue-from").addEventListener("click", () => attempt(find("continue-problem"), continueRun));
  find("edit").addEventListener("click", () => edit().catch(tellProblem));
  find("checkpoint").addEventListener("change", () => {
    picked = find("checkpoint").value;
    tell(find("continue-problem"), null);
    showCheckpoints(chosen.run);
  });
  listen("epoch", refreshCheckpoints);
  listen("runs-changed", refresh);
  listen("lost", () => chosen.name && reload(chosen.name));
  showTree();
}

// The runs that are ticked, besides this one.
export function listCompared({ name: own }) {
  return [...chosen.compared].filter((name) => name !== own && state.runs.some((run) => run.name === name));
}

// Reads the runs whose curves are shown with those of a run: its parent, and the ticked ones.
async function readOthers(run) {
  const names = new Set([run.parent ?? [], ...listCompared(run)].flat());
  run.others = (await Promise.all([...names].map((name) => ask("run", { run: name }).catch(() => [])))).flat();
}

async function refresh() {
  state.runs = (await ask("runs").catch(tellProblem)) ?? state.runs;
  showTree();
}

async function refreshCheckpoints(run) {
  if (performance.now() - refreshed < REFRESH_MS || document.activeElement === find("checkpoint")) return;
  refreshed = performance.now();
  const checkpoints = await ask("checkpoints", { run: run.name }).catch(() => null);
  if (!checkpoints || chosen.run.name !== run.name) return;
  Object.assign(chosen.run, { checkpoints });
  showCheckpoints(chosen.run);
}

export async function select(name) {
  chosen.name = name;
  picked = "";
  for (const id of ["runs-problem", "continue-problem"]) tell(find(id), null);
  showTree();
  update();
  announce("select");
  await reload(name);
}

// Reads a run, unless another one was selected meanwhile; a run that has just started may have no
// folder yet.
export async function reload(name, isRetry = false) {
  await refresh();
  const isHere = state.runs.some((one) => one.name === name);
  let run = { name, rows: [], planned: null, is_finished: false, score: null, checkpoints: [] };
  try {
    if (isHere) run = await ask("run", { run: name });
  } catch (error) {
    setTimeout(() => name === chosen.name && reload(name, true), REFRESH_MS);
    if (name === chosen.name) tellProblem(error);
    return;
  }
  await readOthers(run);
  if (name !== chosen.name) return;
  if (isRetry) tell(find("runs-problem"), null);
  const before = chosen.run?.name === name ? chosen.run : {};
  run.steps = before.steps ?? [];
  if (isActive(findJob(name)) && before.rows?.length > run.rows.length) run.rows = before.rows;
  chosen.run = run;
  showTree();
  showCheckpoints(run);
  showSettings(run);
  announce("run", run);
}

function showTree() {
  const others = [...state.jobs.values()].filter(
    (job) =>
      job.run &&
      findJob(job.run) === job &&
      (isActive(job) || job.state === "failed") &&
      state.runs.every(({ name }) => name !== job.run),
  );
  const runs = [...others.map((job) => ({ name: job.run, problem: isActive(job) ? "" : job.problem })), ...state.runs];
  const byParent = Map.groupBy(runs, (run) => (runs.some(({ name }) => name === run.parent) ? run.parent : null));
  const listFrom = (parent) =>
    (byParent.get(parent) ?? []).map((run) =>
      make("li", {}, showRow(run), byParent.has(run.name) ? make("ul", {}, ...listFrom(run.name)) : null),
    );
  const rows = listFrom(null);
  redraw(
    find("runs"),
    ...(rows.length ? rows : [make("li", { className: "note" }, "There are no runs yet. Press Train.")]),
  );
}

function showRow(run) {
  if (run.problem) return make("div", { className: "problem" }, `${run.name}: ${run.problem}`);
  const job = findJob(run.name);
  const progress = isActive(job)
    ? job.state === "queued"
      ? "waiting"
      : "running"
    : run.is_finished
      ? ""
      : `unfinished, ${run.epochs}/${run.planned ?? "?"} epochs`;
  const from = run.parent
    ? ` from ${run.parent}${run.parent_epoch === null ? "" : ` after epoch ${run.parent_epoch}`}`
    : "";
  const note = run.net ? `${run.net} on ${run.data}${from}${run.score && progress ? `; ${progress}` : ""}` : "";
  return make(
    "div",
    { className: "run-row" },
    make("input", {
      type: "checkbox",
      checked: chosen.compared.has(run.name),
      disabled: !run.net,
      ariaLabel: `compare ${run.name}`,
      title: "compare",
      data: { key: `compare ${run.name}` },
      on: {
        change: (event) => {
          chosen.compared[event.target.checked ? "add" : "delete"](run.name);
          if (chosen.run) readOthers(chosen.run).then(() => announce("compared"));
        },
      },
    }),
    make(
      "button",
      {
        type: "button",
        className: "run",
        ariaPressed: String(chosen.name === run.name),
        data: { key: run.name },
        on: { click: () => chosen.name === run.name || select(run.name) },
      },
      make("strong", {}, run.name),
      make("span", {}, run.score ?? progress),
      make("span", { className: "note" }, note),
    ),
  );
}

// Without a choice by a person, the newest checkpoint is selected; one that is gone is not replaced
// by another.
function showCheckpoints(run) {
  const found = run.checkpoints.map((epoch) => [String(epoch), `epoch ${Number(epoch.toFixed(2))}`]);
  const isGone = picked && found.every(([value]) => value !== picked);
  fill(find("checkpoint"), isGone ? [["", "choose again"], ...found] : found, isGone ? "" : picked || found[0]?.[0]);
  if (isGone) tell(find("continue-problem"), "The chosen epoch is no longer saved. Choose another one.");
  update();
}

// The settings that may change from a saved epoch on; another run begins with its own.
function showSettings({ name, changeable = [], recipe }) {
  if (filled === name) return;
  filled = recipe ? name : "";
  const fields = state.fields.filter((field) => changeable.includes(field.name));
  find("continued-fields").replaceChildren(...fields.map((field) => makeField(field, "continued", recipe[field.name])));
}

// Nothing is done to the run that is shown while another one, already selected, is being read.
function update() {
  const run = chosen.run?.name === chosen.name ? chosen.run : null;
  find("checkpoint").disabled = !run?.checkpoints.length;
  const epoch = find("checkpoint").value;
  find("continue-from").disabled = isContinuing || !run || !epoch;
  find("continue-from").textContent = epoch
    ? `Continue from epoch ${Number(Number(epoch).toFixed(2))}`
    : "Continue from epoch";
  find("edit").disabled = !run?.text;
  find("edit").title = run?.text || !run?.net ? "" : "Its net does not consist of lamina's layers.";
}

// Shows the selected run's data, net and recipe above.
async function edit() {
  const { text, recipe, source, name, size_px: size, val } = chosen.run;
  const isKnown = state.data.some((one) => one.source === source);
  find("time").value = "";
  tell(
    find("runs-problem"),
    isKnown ? null : `The data of ${name}, ${source}, are not in the list. Choose other data.`,
  );
  if (isKnown) {
    find("size").value = size ?? "";
    find("val").value = val ?? "";
    await use(source);
  }
  await useText(text);
  useRecipe(recipe);
  find("net-title").focus();
}

async function continueRun() {
  const given = {
    run: chosen.run.name,
    epoch: Number(find("checkpoint").value),
    fields: readFields("continued"),
  };
  isContinuing = true;
  update();
  try {
    const { run } = await ask("continue", given);
    await select(run);
    find("training-title").focus();
  } finally {
    isContinuing = false;
    update();
  }
}

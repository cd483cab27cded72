// The runs: a tree of what came from what, the selected one, and how to train on from it.

import { ask } from "./api.js";
import { findSource, useSource } from "./data.js";
import { settleNet, useText } from "./net.js";
import { Details, Note, Problem, plain, plural, useKept } from "./parts.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";
import { hasEnded } from "./progress.js";
import { Field, useRecipe } from "./recipe.js";
import { change, findJob, isActive, state } from "./store.js";

const REFRESH_MS = 5000; // least time between two looks at the checkpoints of a training
const MANY_RUNS = 3; // can be sorted and filtered
let turn = 0; // of the last request for the selected run, whose response counts
const tellProblem = (error) => change({ runsProblem: error.message });

export async function refreshRuns() {
  const runs = await ask("runs").catch(tellProblem);
  if (runs) change({ runs });
}

export async function selectRun(name) {
  change({ selected: name, runProblem: null });
  await reloadRun(name);
}

// After a lost connection.
export function recoverRuns() {
  if (state.selected) reloadRun(state.selected);
}

// Reads a run, unless another one was selected meanwhile; a run that has just started may have no
// folder yet.
export async function reloadRun(name, isRetry = false) {
  const asked = ++turn;
  await refreshRuns();
  const isHere = state.runs.some((known) => known.name === name);
  let run = { name, rows: [], planned: null, is_finished: false, score: null, checkpoints: [] };
  try {
    if (isHere) run = await ask("run", { run: name });
  } catch (error) {
    setTimeout(() => name === state.selected && asked === turn && reloadRun(name, true), REFRESH_MS);
    if (name === state.selected) change({ runProblem: error.message });
    return;
  }
  const others = await readOthers(run);
  if (name !== state.selected || asked !== turn) return;
  const before = state.run?.name === name ? state.run : {};
  const isAhead = isActive(findJob(name)) && before.rows?.length > run.rows.length;
  const rows = isAhead ? before.rows : run.rows;
  const { steps = [], pace, seen } = before;
  change({ run: { ...run, others, rows, steps, pace, seen }, ...(isRetry ? { runProblem: null } : {}) });
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

async function compare(name, isCompared) {
  const compared = new Set(state.compared);
  compared[isCompared ? "add" : "delete"](name);
  change({ compared });
  const { run } = state;
  const others = run && (await readOthers(run));
  if (run?.name === state.run?.name && compared === state.compared) change({ run: { ...state.run, others } });
}

// Changes the list of runs; a problem is told there.
async function edit(action, values, follow) {
  change({ runsProblem: null });
  try {
    await follow(await ask(action, values));
    await refreshRuns();
  } catch (error) {
    tellProblem(error);
  }
}

function rename(run, name) {
  return edit("rename-run", { run, name }, ({ run: renamed }) => {
    const compared = new Set([...state.compared].map((known) => (known === run ? renamed : known)));
    const base = state.base?.name === run ? { ...state.base, name: renamed } : state.base;
    change({ compared, base });
    if (state.selected === run) return selectRun(renamed);
  });
}

function remove(name) {
  return edit("delete-run", { run: name }, async ({ deleted }) => {
    change({ deleted: [...state.deleted, { name, deleted }], base: state.base?.name === name ? null : state.base });
    await refreshRuns();
    if (state.selected !== name) return;
    const next = state.runs.find(({ problem }) => !problem)?.name;
    if (next) return selectRun(next);
    change({ selected: null, run: null });
  });
}

function restore({ name, deleted }) {
  const forget = () => change({ deleted: state.deleted.filter((known) => known.deleted !== deleted) });
  return edit("restore-run", { deleted }, async ({ run }) => {
    forget();
    await selectRun(run ?? name);
  });
}

export function RunsPanel() {
  const [order, setOrder] = useState("newest");
  const [words, setWords] = useState("");
  const { runs, jobs, selected, compared } = state;
  useEffect(() => {
    addEventListener("focus", refreshRuns); // another page may have renamed one
    return () => removeEventListener("focus", refreshRuns);
  }, []);
  // not drawn again with each step of a training
  const list = useKept(() => drawList(order, words), [order, words, runs, jobs, selected, compared]);
  return html`
    ${runs.length < 2 && html`<${Note}>Every training is a run: a folder that stays, with its net, recipe and result.</${Note}>`}
    ${runs.length > 1 && html`<${Note}>Tick runs to draw their curves together, and to compare them.</${Note}>`}
    ${
      runs.length > MANY_RUNS &&
      html`<div class="row">
      <label>Order <select value=${order} onChange=${({ target }) => setOrder(target.value)}>
        <option value="newest">newest first</option>
        <option value="best">best first</option>
      </select></label>
      <label>Find <input type="search" size="12" value=${words} onInput=${({ target }) => setWords(target.value)} /></label>
    </div>`
    }
    ${state.deleted.map(
      (run) =>
        html`<p key=${run.deleted} class="row" role="status"><span>${run.name} deleted.</span>
          <button type="button" class="small" aria-label=${plain(`Undo: restore ${run.name}`)} onClick=${() => restore(run)}>Undo</button></p>`,
    )}
    <${Problem} id="runs-problem" text=${state.runsProblem} />
    ${list}
  `;
}

// Runs that wait or failed have no folder yet.
function listRuns() {
  const isShown = (job) => job.run && findJob(job.run) === job && (isActive(job) || job.state === "failed");
  const others = [...state.jobs.values()].filter((job) => isShown(job) && state.runs.every(({ name }) => name !== job.run));
  return [...others.map((job) => ({ name: job.run, problem: isActive(job) ? "" : job.problem })), ...state.runs];
}

function drawList(order, words) {
  const has = ({ name, net, data, note }) => `${name} ${net} ${data} ${note}`.toLowerCase().includes(words.toLowerCase().trim());
  const runs = listRuns().filter(has);
  if (!runs.length) return html`<${Note}>${words ? "No run has these words." : "There are no runs yet."}</${Note}>`;
  const names = new Set(runs.map(({ name }) => name));
  const isTree = order === "newest";
  if (!isTree) runs.sort((a, b) => rate(b) - rate(a));
  const byParent = Map.groupBy(runs, ({ parent }) => (isTree && names.has(parent) ? parent : null));
  const draw = (run) => html`<li key=${run.name}>
    <${Row} run=${run} />
    ${byParent.has(run.name) && html`<ul>${byParent.get(run.name).map(draw)}</ul>`}
  </li>`;
  return html`<ul id="runs" aria-label="Runs">${(byParent.get(null) ?? []).map(draw)}</ul>`;
}

// Of errors, the smaller one is better.
function rate({ score_value: value, is_fraction: isFraction }) {
  if (value === undefined || value === null) return -Infinity;
  return isFraction ? value : -Math.abs(value);
}

function Row({ run }) {
  const { name, net, data, parent, parent_epoch: epoch, note, problem } = run;
  if (problem) return html`<p class="problem">${name}: ${problem}</p>`;
  const isSelected = state.selected === name;
  const from = parent ? ` from ${parent}${epoch === null ? "" : ` after epoch ${epoch}`}` : "";
  return html`<div class="run-row">
      <input type="checkbox" checked=${state.compared.has(name)} disabled=${!net} title="compare"
        aria-label=${plain(`compare ${name}`)} onChange=${({ target }) => compare(name, target.checked)} />
      <button type="button" class="run" aria-pressed=${isSelected} onClick=${() => isSelected || selectRun(name)}>
        <strong>${name}</strong> <span>${summarizeRun(run)}</span>
        ${net && html`<span class="note">${net} on ${data}${from}</span>`}
        ${note && html`<span class="note">“${note}”</span>`}
      </button>
    </div>
    ${isSelected && net && html`<${Tools} run=${run} />`}`;
}

function summarizeRun(run) {
  const job = findJob(run.name);
  if (isActive(job)) return job.state === "queued" ? "waiting" : "running";
  if (!run.net) return "";
  if (run.score) return `${run.is_better ? "✓ " : ""}${run.score_text ?? run.score}`;
  return hasEnded(run) ? "no score" : `paused after ${plural(run.epochs, "epoch")}${run.planned ? ` of ${run.planned}` : ""}`;
}

// Rename, note and delete, for the selected run.
function Tools({ run: { name, note } }) {
  const [editing, setEditing] = useState(null); // {action, text}
  const place = useRef();
  useLayoutEffect(() => place.current?.querySelector("input")?.select(), [editing?.action]);
  const close = () => {
    place.current.querySelector("button").focus();
    setEditing(null);
  };
  const save = (event) => {
    event.preventDefault();
    const text = editing.text.trim();
    close();
    if (editing.action === "note") edit("note-run", { run: name, note: text }, () => null);
    else if (text && text !== name) rename(name, text);
  };
  const begin = (action, text) => () => setEditing({ action, text });
  return html`<div class="row tools" ref=${place} onKeyDown=${({ key }) => key === "Escape" && editing && close()}>
    <button type="button" class="small" onClick=${begin("name", name)}>Rename</button>
    <button type="button" class="small" onClick=${begin("note", note ?? "")}>${note ? "Edit the note" : "Add a note"}</button>
    <button type="button" class="small" onClick=${() => remove(name)}>Delete</button>
    ${
      editing &&
      html`<form class="row" onSubmit=${save}>
      <input aria-label=${editing.action === "note" ? "Note" : "New name"} value=${editing.text} autocomplete="off"
        onInput=${({ target }) => setEditing({ ...editing, text: target.value })} />
      <button class="small">Save</button>
      <button type="button" class="small" onClick=${close}>Cancel</button>
    </form>`
    }
  </div>`;
}

// How to go on from the selected run; what is typed here is for this run alone.
export function Further({ run }) {
  const [isOpen, setOpen] = useState(false);
  const [epochs, setEpochs] = useState(run.checkpoints);
  const [picked, setPicked] = useState(""); // by a person; else the newest one is selected
  const [values, setValues] = useState({});
  const [status, setStatus] = useState({}); // {isAsked, problem}
  const { current: seen } = useRef({ at: -Infinity });
  const choices = epochs.map(String);
  const isGone = picked && !choices.includes(picked);
  const epoch = isGone ? "" : picked || choices[0];
  const isBusyHere = document.activeElement?.id === "checkpoint"; // its choices must stay
  useEffect(() => setEpochs(run.checkpoints), [run.checkpoints]);
  useEffect(() => {
    if (!isOpen || isBusyHere || performance.now() - seen.at < REFRESH_MS) return;
    seen.at = performance.now();
    ask("checkpoints", { run: run.name }).then(setEpochs, () => null);
  }, [isOpen, run.rows.length]);
  if (!run.net) return null;
  const fields = state.fields.filter(({ name }) => run.changeable?.includes(name));
  const filled = fields.filter(({ name }) => values[name]?.trim() && values[name].trim() !== run.recipe[name]);
  const differences = filled.map((field) => [field.label ?? field.name, run.recipe[field.name], values[field.name].trim()]);
  const start = async () => {
    setStatus({ isAsked: true });
    try {
      const sent = Object.fromEntries(filled.map(({ name }) => [name, values[name].trim()]));
      const job = await ask("continue", { run: run.name, epoch: Number(epoch), fields: sent });
      await selectRun(job.run);
      document.getElementById("run-title")?.focus();
    } catch (error) {
      setStatus({ problem: error.message });
    }
  };
  const title = epoch ? `Continue from epoch ${Number(Number(epoch).toFixed(2))}` : "Continue from epoch";
  return html`<div id="further">
    <div class="row">
      <button id="edit" type="button" disabled=${!run.text} onClick=${() => copySettings(run)}>Edit its net and recipe</button>
      <span class="note">${run.text ? "and train a changed copy" : "Its net does not consist of lamina's layers."}</span>
    </div>
    <${Details} summary="Continue from a saved epoch" onToggle=${({ target }) => setOpen(target.open)}>
      <${Note}>Trains from there as a new run, with the net and the data of ${run.name}.</${Note}>
      <div class="row">
        <label for="checkpoint">From</label>
        <select id="checkpoint" value=${epoch} disabled=${!choices.length} onChange=${({ target }) => setPicked(target.value)}>
          ${isGone && html`<option value="">choose again</option>`}
          ${choices.map((value) => html`<option key=${value} value=${value}>epoch ${Number(Number(value).toFixed(2))}</option>`)}
        </select>
        <button id="continue-from" type="button" disabled=${status.isAsked || !epoch} onClick=${start}>${title}</button>
      </div>
      <${Differences} title=${`What will differ from ${run.name}`} differences=${differences} />
      <${Problem} id="continue-problem"
        text=${isGone ? "The chosen epoch is no longer saved. Choose another one." : status.problem} />
      <${Details} summary="Change its settings">
        <div class="fields">
          ${fields.map(
            (field) =>
              html`<${Field} key=${field.name} field=${field} id=${`continued-${field.name}`} value=${values[field.name] ?? ""}
                placeholder=${run.recipe[field.name]} onInput=${(value) => setValues({ ...values, [field.name]: value })} />`,
          )}
        </div>
      </${Details}>
    </${Details}>
  </div>`;
}

function Differences({ title, differences }) {
  if (!differences.length) return html`<${Note}>${title}: nothing.</${Note}>`;
  const show = ([what, before, after]) => html`<li>${what}: ${before} → <strong>${after}</strong></li>`;
  return html`<${Note}>${title}:</${Note}><ul class="differences">${differences.map(show)}</ul>`;
}

// Puts a run's data, net and recipe into the steps.
async function copySettings(run) {
  const { name, text, recipe, source, size_px: size, val } = run;
  const isKnown = Boolean(findSource(source));
  change({ time: "", trainingProblem: null, step: "net" });
  if (isKnown) {
    change({ sizePx: String(size ?? ""), val: String(val ?? "") });
    useSource(source);
  } else change({ trainingProblem: `The images of ${name}, ${source}, are not in the list. Choose others under Images.` });
  await useText(text);
  await settleNet();
  await useRecipe(recipe);
  change({ base: { ...run, text: state.net.text } });
  document.getElementById("net-title")?.focus();
}

// What Train would change against the run whose settings were put into the steps.
export function Changes() {
  const { base, net, plan } = state;
  if (!base) return null;
  const word = (field, value) => (value === "None" ? "none" : value);
  const planned = plan?.fields ?? {};
  const differences = [
    ["Images", base.source, state.source],
    ["Image size", String(base.size_px ?? "as lamina chooses"), state.sizePx.trim() || "as lamina chooses"],
    ["Held out for val", String(base.val ?? 0), state.val.trim() || String(base.val ?? 0)],
    ["Net", base.net, net.isChosen ? "chosen by lamina" : net.text === base.text ? base.net : "another one"],
    ["Time limit", "none", state.time.trim() || "none"],
    ...state.fields
      .filter(({ name }) => name in planned && name in base.recipe)
      .map(({ name, label }) => [label ?? name, word(name, base.recipe[name]), word(name, planned[name])]),
  ].filter(([, before, after]) => before !== after);
  return html`<div id="changes">
    <${Differences} title=${`What will differ from ${base.name}`} differences=${differences} />
    <button type="button" class="small" onClick=${() => change({ base: null })}>Hide this list</button>
  </div>`;
}

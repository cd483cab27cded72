// The runs: a tree of what came from what, and the selected one.

import { compare, remove, selectRun, showTools } from "../actions/runs.js";
import { Button, Note, Problem, focusLater, plural } from "../parts.js";
import { html, useLayoutEffect, useMemo, useState } from "../preact.js";
import { NARROW, findJob, findSelected, hasEnded, isActive, state } from "../state.js";

const MANY_RUNS = 3; // more can be sorted and filtered
const FEW = "Every training is a run: a folder that stays, with its net, its settings and its result.";
const MANY = "Tick runs to draw their curves beside those of the selected one, and to compare them.";

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

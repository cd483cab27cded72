// Compare: the runs that are ticked in the list; the selected one, too, unless two others are.

import { reloadRun } from "../actions/runs.js";
import { askLast } from "../api.js";
import { Details, Note, Outcome, Table, count, plural, useLoaded } from "../parts.js";
import { html } from "../preact.js";
import { change, state } from "../state.js";
import { Gallery } from "./closer.js";

export function Compare({ run: selected }) {
  const ticked = [...state.compared].filter(findRun);
  const isAmong = ticked.length < 2 || ticked.includes(selected.name);
  const run = isAmong ? selected : findRun(ticked[0]);
  const others = ticked.filter((name) => name !== run.name);
  return html`
    <${Choice} run=${run} others=${others} />
    ${others.length > 0 && html`<${Comparison} key=${[run.name, ...others].join("\n")} run=${run} others=${others} />`}
  `;
}

// Runs can be ticked in the list, too, which may be out of view.
function Choice({ run, others }) {
  const names = state.runs.filter(({ net, name }) => net && name !== run.name && !others.includes(name));
  const add = ({ target }) => {
    change({ compared: new Set([...state.compared, run.name, target.value]) });
    reloadRun(state.selected); // for their curves
  };
  if (!names.length && !others.length) return html`<${Note}>Train another run to compare it with this one.</${Note}>`;
  return html`<div class="row">
    <label for="compare-with">Compare ${run.name} with ${others.join(" and ")}</label>
    <select id="compare-with" value="" onChange=${add} hidden=${!names.length}>
      <option value="">${others.length ? "and with another run" : "a run"}</option>
      ${names.map(({ name }) => html`<option value=${name}>${describe(name)}</option>`)}
    </select>
  </div>`;
}

function Comparison({ run, others }) {
  const ask = () => askLast("compare", { run: run.name, others });
  const scores = others.map((name) => findRun(name)?.score);
  const request = useLoaded("Comparing the predictions on the test images", ask, [run.score, scores.join(" ")]);
  const draw = ({ problems, judged, differences, disagreements }) => html`
    ${problems.map((text) => html`<p class="diagnosis">${text}</p>`)}
    ${judged.length > 0 && html`<${Verdicts} run=${run} judged=${judged} />`}
    ${Object.entries(differences).map(([name, rows]) => html`<${Differences} ...${{ run, name, rows }} />`)}
    ${Object.entries(disagreements).map(([name, groups]) => html`<${Disagreements} ...${{ run, name, groups }} />`)}
  `;
  return html`<${Outcome} request=${request} draw=${draw} />`;
}

const findRun = (name) => state.runs.find((run) => run.name === name);

// Name, net and score of a run, so that one knows which it is.
function describe(name) {
  const run = findRun(name);
  return run ? `${name} (${[run.net, run.score_text].filter(Boolean).join(", ")})` : name;
}

// The words of a comparison of A with B, with their names.
function say(b, { a, verdict, words }) {
  if (verdict === "equal") return `${a} and ${b} are ${words}`;
  if (verdict === "undecided")
    return `It is not clear which of ${a} and ${b} is better: ${words.replace("undecided: ", "")}`;
  return words.replace(`A is ${verdict}`, () => `${a} is ${verdict} than ${b}`);
}

// A remark on A and B, with their names.
const putNames = (text, a, b) => text.replace(/^[AB](?= has )/, (letter) => (letter === "A" ? a : b));

function Verdicts({ run, judged }) {
  const [{ images, split, metric }] = judged;
  const told = new Set(); // remarks, which several verdicts may share
  const isNew = (text) => !told.has(text) && told.add(text);
  const tell = ({ a, remarks }) => remarks.map((text) => putNames(text, a, run.name)).filter(isNew);
  const all = `The intervals are wider, so that all ${judged.length} verdicts hold with 95 % confidence.`;
  return html`
    <h3>On the same ${count(images)} ${split} images: ${metric.replaceAll("_", " ")}</h3>
    ${judged.map(
      (comparison) => html`
        <p><strong>${say(run.name, comparison)}</strong>.</p>
        ${tell(comparison).map((text) => html`<${Note}>${text}</${Note}>`)}
      `,
    )}
    <${Note}>On many more images, the difference would very probably lie in this interval.</${Note}>
    ${judged.length > 1 && html`<${Note}>${all}</${Note}>`}
  `;
}

function Differences({ run, name, rows }) {
  const table = {
    heads: ["setting", name, run.name],
    rows: rows.map(({ what, first, second }) => [what, second, first]),
    label: `Settings of ${name}`,
    kind: "texts",
  };
  return html`
    <h3>How ${describe(name)} differs from ${describe(run.name)}</h3>
    ${rows.length ? html`<${Table} ...${table} />` : html`<${Note}>Nothing: same net, recipe and data.</${Note}>`}
  `;
}

function Disagreements({ run, name, groups }) {
  const verb = groups.length < 3 ? "closer" : "right"; // for numbers, both are never wrong
  const titles = {
    a: `Only ${name} is ${verb}`,
    b: `Only ${run.name} is ${verb}`,
    "": "Both are wrong, with different predictions",
  };
  const lines = ({ target, predicted, other }) => [
    `target ${target}`,
    `${name}: ${predicted}`,
    `${run.name}: ${other}`,
  ];
  const show = ({ better, count: size, run: newer, ...shown }, place) => {
    const most = size > shown.images.length ? `, the ${shown.images.length} with the largest difference` : "";
    return html`<${Details} summary=${`${titles[better]}: ${plural(size, "image")}${most}`} open=${!place}>
      <${Gallery} run=${{ name: newer }} ...${shown} describe=${lines} />
    </${Details}>`;
  };
  return html`<h3>Where ${name} and ${run.name} disagree</h3>${groups.map(show)}`;
}

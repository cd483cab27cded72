// Results: the report of a run, what it confuses, its largest errors, and what its units respond to.

import { askLast } from "../api.js";
import { Button, Details, Note, Outcome, Picture, Table, count, plural, useLoaded, useRequest } from "../parts.js";
import { html, useLayoutEffect, useRef, useState } from "../preact.js";
import { findJob, isActive } from "../state.js";
import { Gallery } from "./closer.js";
import { Term } from "./term.js";

// of a confusion matrix; with more, the most frequent confusions are listed
const MOST_CLASSES = 25;
const MOST_PAIRS = 40;
const STEPS = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };

export function Look({ run }) {
  const isTraining = isActive(findJob(run.name));
  if (isTraining || !run.rows.length)
    return html`<${Note}>The results of ${run.name} appear here when its training has ended.</${Note}>`;
  return html`<${Results} run=${run} key=${`${run.score} ${run.rows.length}`} />`;
}

function Results({ run }) {
  const request = useLoaded("Reading the results", () => askLast("report", { run: run.name }), []);
  const draw = ({ missing, layers, ...result }) => html`
    ${missing ? html`<${Note}>${missing}</${Note}>` : html`<${Report} run=${run} ...${result} />`}
    ${run.considered?.length > 0 && html`<${Considered} nets=${run.considered} />`}
    <${Responses} run=${run} layers=${layers} />
  `;
  return html`<${Outcome} request=${request} draw=${draw} />`;
}

function Report({ run, verdict, lines, table: [heads, rows], report, confusions, largest }) {
  const [cell, setCell] = useState(null);
  const { baseline, kind, split } = report;
  const isLittle = !run.is_better && baseline?.gain_interval?.low > 0;
  const more = isLittle ? " But only a little: train longer, or use more images." : "";
  const advised = run.considered.length ? verdict.slice(0, 1) : verdict; // the run's head says to give it more time
  const text = advised.join(" ").replaceAll("the baseline", "guessing"); // as in the line above
  return html`
    <p class=${run.is_better ? "good verdict" : "verdict"}>${text}${more}</p>
    <div class=${confusions.length ? "beside" : ""}>
      <div>
        ${confusions.length > 0 && html`<${Confusions} confusions=${confusions} chosen=${cell} choose=${setCell} />`}
        <${Details} summary="More numbers">
          ${lines.map((line) => html`<${Note}>${line.replace(/ -(?=\d)/gu, " −")}</${Note}>`)}
          <${Table} heads=${heads} rows=${rows} caption=${`Each ${heads[0]}, on ${split}`} />
        </${Details}>
      </div>
      <div class="behind">
        ${cell && html`<${Cell} key=${cell.key} run=${run} cell=${cell} close=${() => setCell(null)} />`}
        ${!cell && html`<${Largest} run=${run} kind=${kind} names=${rows.map(([name]) => name)} largest=${largest} />`}
      </div>
    </div>
  `;
}

const TRUE = { regression: "True numbers", "multi-label": "True labels" }; // of an image; else its class

const describePair = ({ target, predicted }) => [`${target} →`, predicted];

function Largest({ run, kind, names, largest }) {
  const isNumber = kind === "regression";
  const title = largest.are_wrong ? "Its worst mistakes" : "Its least certain predictions";
  const what = isNumber ? `for ${names.join(", ")}` : "with its probability";
  return html`
    <h3>${isNumber ? "Largest errors" : title}</h3>
    <${Note}>
      ${TRUE[kind] ?? "True class"} → prediction ${what}, the largest loss <${Term} name="loss" /> first. Choose an
      image to look inside the net.
    </${Note}>
    <${Gallery} run=${run} ...${largest} describe=${describePair} />
  `;
}

// The images behind a number of a table of confusions.
function Cell({ run, cell: { problem, truth, predicted, size, label }, close }) {
  const heading = useRef();
  const ask = () => askLast("cell", { run: run.name, problem, truth, predicted });
  const request = useLoaded("Reading the images", ask, []);
  useLayoutEffect(() => heading.current.scrollIntoView({ block: "nearest" }), []);
  const draw = (tiles) => html`
    <${Note}>The largest loss first${tiles.images.length < size && `; ${tiles.images.length} are shown`}.</${Note}>
    <${Gallery} run=${run} ...${tiles} describe=${describePair} />
  `;
  return html`
    <h3 ref=${heading}>${label}</h3>
    <${Button} small onClick=${close}>Back to the worst of all</${Button}>
    <${Outcome} request=${request} draw=${draw} />
  `;
}

// Tables of `confusions`, which are, for each problem, the names of its classes and the cells of its
// confusion matrix: [true class, predicted class, images].
function Confusions({ confusions, chosen, choose }) {
  const [at, setAt] = useState(""); // the key of the button that the Tab key reaches
  let first = at;
  const offer = (problem, [truth, predicted, size], part) => {
    const [names] = confusions[problem];
    const isRight = truth === predicted;
    const what = isRight ? "predicted correctly" : `predicted as ${names[predicted]}`;
    const label = `${plural(size, "image")}: ${names[truth]}, ${what}`;
    const key = `${problem} ${truth} ${predicted}`;
    first ||= key;
    return html`<${Button} class=${isRight ? "cell right" : "cell"} style=${{ "--part": `${Math.round(45 * part)}%` }}
      aria-label=${label} aria-pressed=${chosen?.key === key} tabindex=${first === key ? 0 : -1}
      onFocus=${() => setAt(key)} onClick=${() => choose({ key, problem, truth, predicted, size, label })}>
      ${count(size)}
    </${Button}>`;
  };
  const list = confusions.length > 1 ? listLabels : confusions[0][0].length > MOST_CLASSES ? listPairs : listMatrix;
  return html`<div onKeyDown=${walk}>
    <h3>What it confuses <${Term} name="confusion matrix" /></h3>
    <${Note}>Choose a number to see its images; arrow keys move between numbers. The stronger the color, the larger the
      part of the true class or of all images.</${Note}>
    <${Table} ...${list(confusions, offer)} />
  </div>`;
}

// Arrow keys move between the buttons of a table.
function walk(event) {
  const [down, across] = STEPS[event.key] ?? [0, 0];
  let cell = event.target.closest("td");
  if (!cell || !(down || across)) return;
  const { rows } = cell.closest("table");
  do cell = rows[cell.parentElement.rowIndex + down]?.cells[cell.cellIndex + across];
  while (cell && !cell.querySelector("button"));
  if (!cell) return;
  event.preventDefault();
  cell.querySelector("button").focus();
}

const sum = (cells) => cells.reduce((total, [, , size]) => total + size, 0);

const findCell = (cells, row, column) => cells.find(([truth, predicted]) => truth === row && predicted === column);

function listMatrix([[names, cells]], offer) {
  const rows = names.map((name, row) => {
    const total = sum(cells.filter(([truth]) => truth === row));
    const inRow = names.map((_, column) => findCell(cells, row, column));
    return [name, ...inRow.map((cell) => (cell ? offer(0, cell, cell[2] / total) : "·"))];
  });
  const heads = ["true ↓ predicted →", ...names.map((name) => html`<span>${name}</span>`)];
  return { heads, rows, caption: "Images by class", kind: "matrix" };
}

// For labels: the four counts of each label.
function listLabels(confusions, offer) {
  const rows = confusions.map(([names, cells], problem) => {
    const total = sum(cells);
    const four = [findCell(cells, 1, 1), findCell(cells, 0, 0), findCell(cells, 0, 1), findCell(cells, 1, 0)];
    const numbers = four.map((cell) => (cell ? offer(problem, cell, cell[2] / total) : "0"));
    return [names[1].replace(/: yes$/u, ""), ...numbers];
  });
  const heads = ["label", "found", "absent, not predicted", "predicted, but absent", "missed"];
  return { heads, rows, caption: "Images by label", kind: "matrix" };
}

function listPairs([[names, cells]], offer) {
  const wrong = cells.filter(([truth, predicted]) => truth !== predicted).sort((a, b) => b[2] - a[2]);
  const rows = wrong.slice(0, MOST_PAIRS).map((cell) => [names[cell[0]], names[cell[1]], offer(0, cell, 0)]);
  return { heads: ["true", "predicted", "images"], rows, caption: "The most frequent confusions" };
}

// The nets that lamina considered for the run, and why it chose one.
function Considered({ nets }) {
  const rows = nets.map(({ name, side_px: side, verdict }) => [name, `${side} px`, verdict]);
  const isSlow = nets.some(({ verdict }) => verdict.includes("not finish"));
  return html`<${Details} summary="How lamina chose this net" open=${isSlow}>
    <${Table} heads=${["net", "image size", "measured"]} rows=${rows} label="Considered nets" kind="texts" />
  </${Details}>`;
}

function Responses({ run, layers }) {
  const [layer, setLayer] = useState(layers[0]?.[0]);
  const [request, start] = useRequest();
  const show = () => start("Searching training images for the patches", askLast("units", { run: run.name, layer }));
  return html`
    <h3>What its units respond to <${Term} name="unit" /></h3>
    <div class="row">
      <label for="unit-layer">Layer</label>
      <select id="unit-layer" value=${layer} onChange=${({ target }) => setLayer(target.value)}>
        ${layers.map(([path, title]) => html`<option value=${path}>${title}</option>`)}
      </select>
      <${Button} onClick=${show}>Show patches</${Button}>
    </div>
    <${Outcome} request=${request} draw=${Patches} />
  `;
}

function Patches({ shown, units, searched, field }) {
  const show = ([number, best, patches]) => html`<li class="tile">
    ${patches && html`<${Picture} ...${patches} alt=${`patches that excite unit ${number}`} kind="pixels" />`}
    ${!patches && html`<span>constant response</span>`}
    <strong>unit ${number}</strong><span>${best}</span>
  </li>`;
  return html`
    <${Note}>${shown.length} of ${count(units)} units, and the patches of ${count(searched)} training images that excite
      each most. A unit sees ${field}. Below: the class that its response separates best, with the area under the ROC
      curve.</${Note}>
    <ul class="gallery">${shown.map(show)}</ul>
  `;
}

// Results: the report of a run, what it confuses, its largest errors, and what its units respond to.

import { askLast } from "./api.js";
import { Gallery } from "./closer.js";
import { Button, Details, Note, Outcome, Table, Tiles, count, plain, plural, useLoaded, useRequest } from "./parts.js";
import { html, useLayoutEffect, useRef, useState } from "./preact.js";
import { findJob, isActive } from "./store.js";

// of a confusion matrix; with more, the most frequent confusions are listed
const MOST_CLASSES = 25;
const MOST_PAIRS = 40;
const HARDLY = 0.1; // a gain that is less than this part of what can be gained
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
    <${Considered} nets=${run.considered ?? []} />
    <${Responses} run=${run} layers=${layers} />
  `;
  return html`<${Outcome} request=${request} draw=${draw} />`;
}

function Report({ run, verdict, lines, table, report, confusions, largest }) {
  const [cell, setCell] = useState(null);
  const [heads, rows] = table;
  const { baseline, kind, split } = report;
  const isHardly = baseline && baseline.gain < HARDLY * (kind === "regression" ? baseline.value : 1 - baseline.value);
  const isGood = run.is_better && !isHardly;
  const more = run.is_better && isHardly ? " But only a little: train longer, or use more images." : "";
  return html`
    <p class=${isGood ? "good verdict" : "verdict"}>${verdict.join(" ")}${more}</p>
    ${lines.map((line, place) => (place ? html`<${Note}>${line}</${Note}>` : html`<p><strong>${line}</strong></p>`))}
    <div class=${confusions.length ? "beside" : ""}>
      <div>
        ${confusions.length > 0 && html`<${Confusions} confusions=${confusions} cell=${cell} choose=${setCell} />`}
        <${Details} summary=${`Each ${heads[0]}`}>
          <${Table} heads=${heads} rows=${rows} caption=${`Each ${heads[0]}, on ${split}`} />
        </${Details}>
      </div>
      <div class="behind">
        ${
          cell
            ? html`<${Cell} key=${cell.key} run=${run} cell=${cell} close=${() => setCell(null)} />`
            : html`<${Largest} run=${run} kind=${kind} names=${rows.map(([name]) => name)} largest=${largest} />`
        }
      </div>
    </div>
  `;
}

function describePair({ target, predicted }) {
  return [`${target} →`, predicted];
}

function Largest({ run, kind, names, largest }) {
  const isNumber = kind === "regression";
  const title = largest.are_wrong ? "Its worst mistakes" : "Its least certain predictions";
  const what = isNumber ? `Target → prediction, for ${names.join(", ")}.` : "Target → prediction with its probability.";
  return html`
    <h3>${isNumber ? "Largest errors" : title}</h3>
    <${Note}>${what} Choose an image to look inside the net.</${Note}>
    <${Gallery} run=${run} ...${largest} describe=${describePair} />
  `;
}

// The images behind a number of a table of confusions.
function Cell({ run, cell, close }) {
  const { problem, truth, predicted, size, label } = cell;
  const heading = useRef(null);
  const ask = () => askLast("cell", { run: run.name, problem, truth, predicted });
  const request = useLoaded("Reading the images", ask, []);
  useLayoutEffect(() => heading.current.scrollIntoView({ block: "nearest" }), []);
  const draw = (tiles) => {
    const shown = tiles.images.length;
    const order = shown < size ? `The ${shown} with the largest loss, the worst first.` : "The largest loss first.";
    return html`<${Note}>${order}</${Note}><${Gallery} run=${run} ...${tiles} describe=${describePair} />`;
  };
  return html`
    <h3 ref=${heading}>${label}</h3>
    <${Button} small onClick=${close}>Back to the worst of all</${Button}>
    <${Outcome} request=${request} draw=${draw} />
  `;
}

function Confusions({ confusions, cell: chosen, choose }) {
  const [at, setAt] = useState("");
  let first = at; // the button with the place in the order of Tab
  const offer = (problem, names, [truth, predicted, size], part) => {
    const [name, guess] = [names[truth], names[predicted]];
    const title = truth === predicted ? `${name}, predicted correctly` : `${name}, predicted as ${guess}`;
    const label = `${plural(size, "image")}: ${title}`;
    const key = `${problem} ${truth} ${predicted}`;
    first ||= key;
    return html`<button
      type="button"
      class=${truth === predicted ? "cell right" : "cell"}
      style=${{ "--part": `${Math.round(45 * part)}%` }}
      aria-label=${plain(label)}
      aria-pressed=${chosen?.key === key}
      tabindex=${first === key ? 0 : -1}
      data-key=${key}
      onClick=${() => choose({ key, problem, truth, predicted, size, label })}
    >
      ${count(size)}
    </button>`;
  };
  // Arrow keys move between the buttons, which have one place in the order of Tab.
  const walk = (event) => {
    const [down, across] = STEPS[event.key] ?? [0, 0];
    const cell = event.target.closest("td");
    if (!cell || !(down || across)) return;
    const rows = [...event.currentTarget.querySelectorAll("tbody tr")];
    let row = rows.indexOf(cell.parentElement);
    let column = cell.cellIndex;
    do [row, column] = [row + down, column + across];
    while (rows[row]?.cells[column] && !rows[row].cells[column].querySelector("button"));
    const button = rows[row]?.cells[column]?.querySelector("button");
    if (!button) return;
    event.preventDefault();
    setAt(button.dataset.key);
    button.focus();
  };
  const [[names]] = confusions;
  const List = confusions.length > 1 ? Labels : names.length <= MOST_CLASSES ? Matrix : Pairs;
  return html`<div onKeyDown=${walk}>
    <h3>What it confuses</h3>
    <${Note}>Choose a number to see its images; arrow keys move between numbers. The stronger the color, the larger the
      part of the true class or of all images.</${Note}>
    ${List({ confusions, offer })}
  </div>`;
}

function Matrix({ confusions: [[names, cells]], offer }) {
  const known = new Map(cells.map((cell) => [`${cell[0]} ${cell[1]}`, cell]));
  const sums = names.map((_, row) => cells.filter(([truth]) => truth === row).reduce((sum, cell) => sum + cell[2], 0));
  const show = (cell, row) => (cell ? offer(0, names, cell, cell[2] / sums[row]) : "·");
  const rows = names.map((name, row) => [name, ...names.map((_, column) => show(known.get(`${row} ${column}`), row))]);
  const heads = ["true ↓ predicted →", ...names.map((name) => html`<span>${name}</span>`)];
  return html`<${Table} heads=${heads} rows=${rows} caption="Images by class" kind="matrix" />`;
}

// For labels: the four counts of each label.
function Labels({ confusions, offer }) {
  const rows = confusions.map(([names, cells], problem) => {
    const sum = cells.reduce((total, cell) => total + cell[2], 0);
    const known = new Map(cells.map((cell) => [`${cell[0]} ${cell[1]}`, cell]));
    const show = (cell) => (cell ? offer(problem, names, cell, cell[2] / sum) : "0");
    const four = ["1 1", "0 0", "0 1", "1 0"].map((key) => show(known.get(key)));
    return [names[1].replace(/: yes$/u, ""), ...four];
  });
  const heads = ["label", "found", "absent, not predicted", "predicted, but absent", "missed"];
  return html`<${Table} heads=${heads} rows=${rows} caption="Images by label" kind="matrix" />`;
}

function Pairs({ confusions: [[names, cells]], offer }) {
  const wrong = cells.filter(([truth, predicted]) => truth !== predicted).sort((a, b) => b[2] - a[2]);
  const rows = wrong.slice(0, MOST_PAIRS).map((cell) => [names[cell[0]], names[cell[1]], offer(0, names, cell, 0)]);
  return html`<${Table}
    heads=${["true", "predicted", "images"]}
    rows=${rows}
    caption="The most frequent confusions"
  />`;
}

// The nets that lamina considered for the run, and why it chose one.
function Considered({ nets }) {
  if (!nets.length) return null;
  const rows = nets.map(({ name, side_px: side, verdict }) => [name, `${side} px`, verdict]);
  const isSlow = nets.some(({ verdict }) => verdict.includes("slow"));
  return html`<${Details} summary="How lamina chose this net" open=${isSlow}>
    <${Table} heads=${["net", "image size", "measured"]} rows=${rows} label="Considered nets" kind="texts" />
  </${Details}>`;
}

function Responses({ run, layers }) {
  const [layer, setLayer] = useState(layers[0]?.[0]);
  const [request, start] = useRequest();
  const show = () => start("Searching training images for the patches", askLast("units", { run: run.name, layer }));
  return html`
    <h3>What its units respond to</h3>
    <div class="row">
      <label for="unit-layer">Layer</label>
      <select id="unit-layer" value=${layer} onChange=${({ target }) => setLayer(target.value)}>
        ${layers.map(([path, title]) => html`<option value=${path}>${title}</option>`)}
      </select>
      <${Button} onClick=${show}>Show patches</${Button}>
    </div>
    <${Outcome} request=${request} draw=${(result) => html`<${Patches} ...${result} />`} />
  `;
}

function Patches({ shown, units, searched, field }) {
  return html`
    <${Note}>${shown.length} of ${count(units)} units, and the patches of ${count(searched)} training images that excite
      each most. A unit sees ${field}. Below: the class that its response separates best, with the area under the ROC
      curve.</${Note}>
    <ul class="gallery">
      ${shown.map(
        ([number, best, patches]) =>
          html`<li class="tile">
            ${patches && html`<${Tiles} ...${patches} alt=${`patches that excite unit ${number}`} />`}
            ${!patches && html`<span>constant response</span>`}
            <strong>unit ${number}</strong><span>${best}</span>
          </li>`,
      )}
    </ul>
  `;
}

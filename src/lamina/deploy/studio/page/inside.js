// Inside the net: filters, outputs of units, and statistics of the layers; while it trains, again
// and again.

import { askLast } from "./api.js";
import { Details, Note, Picture, Problem, Table, percent, plain } from "./parts.js";
import { html, useEffect, useRef, useState } from "./preact.js";
import { findJob, isActive } from "./store.js";

const LOOK_MS = 2000;
const REST = 20; // least time between two looks at the weights, also as a multiple of the last look's
const MOST_LAYERS = 5;

// Shows the weights that were saved last, if they are new and the panel is open and visible.
export function Inside({ run }) {
  const [isOpen, setOpen] = useState(true);
  const [row, setRow] = useState(0);
  const [seen, setSeen] = useState({}); // {image, …} or {problem}
  const [, wake] = useState(0);
  const { current: looking } = useRef({ key: "", next: 0, isBusy: false });
  const isTraining = isActive(findJob(run.name));
  const key = `${row} ${isTraining} ${run.rows.length}`;
  const look = async () => {
    const began = performance.now();
    Object.assign(looking, { key, isBusy: true });
    try {
      setSeen(await askLast("look", { run: run.name, image: ["", row] }, "live"));
    } catch (error) {
      // the weights are saved after the first epochs; the next epoch looks again
      if (!isTraining) setSeen({ problem: error.message });
    }
    const end = performance.now();
    Object.assign(looking, { next: end + Math.max(LOOK_MS, REST * (end - began)), isBusy: false });
    wake(end);
  };
  useEffect(() => {
    const check = () => wake(performance.now());
    document.addEventListener("visibilitychange", check);
    return () => document.removeEventListener("visibilitychange", check);
  }, []);
  useEffect(() => {
    if (!isOpen || document.hidden || looking.isBusy || looking.key === key || !run.rows.length) return;
    // only the next epochs wait
    const isNext = isTraining && looking.key.startsWith(`${row} true`);
    const timer = setTimeout(look, isNext ? looking.next - performance.now() : 0);
    return () => clearTimeout(timer);
  }, [key, isOpen, document.hidden, looking.isBusy]);
  if (!run.rows.length) return null;
  const layers = run.rows.findLast((epoch) => epoch.layers)?.layers;
  return html`<${Details} id="live" open=${isOpen} onToggle=${({ target }) => setOpen(target.open)}
    summary=${html`<h3 id="live-title">Inside the net${isTraining ? ", now" : ""}</h3>`}>
    <${Problem} text=${seen.problem} />
    ${
      seen.image &&
      html`<div class="looks">
        <${Part} title="an image">
          <${Picture} png=${seen.image} alt=${`image of ${seen.target}`} kind="pixels single" />
          <${Note}>${seen.target}</${Note}>
          <button type="button" class="small" onClick=${() => setRow(row + 1)}>Another image</button>
        </${Part}>
        <${Layers} filters=${seen.filters} layers=${seen.layers.slice(0, MOST_LAYERS)} />
      </div>`
    }
    ${layers && html`<${Statistics} ...${layers} />`}
  </${Details}>`;
}

// A titled part of a net's inside.
export function Part({ title, children }) {
  return html`<div class="look">
    <h4>${title}</h4>
    ${children}
  </div>`;
}

// Pictures side by side, drawn by the studio as one.
export function Sheet({ png, columns, alt }) {
  const style = { "--columns": columns };
  return html`<img class="pixels" src=${`data:image/png;base64,${png}`} alt=${plain(alt)} style=${style} />`;
}

export function Bars({ values }) {
  const limit = Math.max(...values.map(Math.abs), 1e-9);
  const label = `${values.length} units; the largest output is ${Math.max(...values).toPrecision(2)}`;
  const show = (value) => html`<i style=${{ height: `${Math.round((100 * Math.abs(value)) / limit)}%` }}></i>`;
  return html`<div class="bars" role="img" aria-label=${label}>${values.map(show)}</div>`;
}

// The filters of the first layer, and the outputs of units of the layers.
export function Layers({ filters, layers }) {
  const title = "filters of the first layer";
  const show = ({ name, maps, units, values }) =>
    html`<${Part} key=${name} title=${name}>
      ${
        maps
          ? html`<${Sheet} ...${maps} alt=${`outputs of ${units} units of ${name}, brighter is stronger`} />`
          : html`<${Bars} values=${values} />`
      }
    </${Part}>`;
  return html`${filters && html`<${Part} title=${title}><${Sheet} ...${filters} alt=${title} /></${Part}>`}
  ${layers.map(show)}`;
}

function Statistics({ names, gradient_norms: gradients, update_norms: updates, weight_norms: weights, ...more }) {
  const format = (value) => (value == null ? "" : Number(value.toPrecision(3)).toString());
  const rows = names.map((name, place) => [
    name,
    format(gradients[place]),
    updates[place] && weights[place] ? (updates[place] / weights[place]).toExponential(1) : "",
    more.dead_fractions[place] == null ? "" : percent(more.dead_fractions[place]),
  ]);
  const heads = ["layer", "gradient norm", "update ÷ weights", "dead units"];
  return html`<${Details} summary="Gradients and dead units of each layer">
    <${Table} heads=${heads} rows=${rows} caption="Statistics after the last measured epoch" />
  </${Details}>`;
}

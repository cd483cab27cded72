// Inside the net: filters, outputs of units, and statistics of the layers; while it trains, again
// and again.

import { askLast } from "./api.js";
import { Button, Details, Layers, Note, Picture, Problem, Table, percent } from "./parts.js";
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
  const { image, target, filters, layers, problem } = seen;
  const statistics = run.rows.findLast((epoch) => epoch.layers)?.layers;
  const title = html`<h3 id="live-title">Inside the net${isTraining ? ", now" : ""}</h3>`;
  const toggle = (event) => setOpen(event.target.open);
  return html`<${Details} id="live" open=${isOpen} onToggle=${toggle} summary=${title}>
    <${Problem} text=${problem} />
    <div class="looks">
      ${image && html`<${Example} image=${image} target=${target} next=${() => setRow(row + 1)} />`}
      ${image && html`<${Layers} filters=${filters} layers=${layers.slice(0, MOST_LAYERS)} />`}
    </div>
    ${statistics && html`<${Statistics} ...${statistics} />`}
  </${Details}>`;
}

function Example({ image, target, next }) {
  return html`<div class="look">
    <h4>an image</h4>
    <${Picture} png=${image} alt=${`image of ${target}`} kind="pixels single" />
    <${Note}>${target}</${Note}>
    <${Button} small onClick=${next}>Another image</${Button}>
  </div>`;
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

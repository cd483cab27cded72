// Inside the net: filters, outputs of units, and statistics of the layers; while it trains, again
// and again.

import { askLast } from "../api.js";
import { Button, Details, Layers, Note, Picture, Problem, Table, percent } from "../parts.js";
import { html, useEffect, useState } from "../preact.js";
import { change, findJob, isActive } from "../state.js";
import { Term } from "./term.js";

const LOOK_MS = 2000;
const REST = 20; // least time between two looks at the weights, also as a multiple of the last look's
const MOST_LAYERS = 5;

document.addEventListener("visibilitychange", () => change({}));

// Shows the weights that were saved last, if they are new and the panel is open and visible.
export function Inside({ run }) {
  const [isOpen, setOpen] = useState(true);
  const [row, setRow] = useState(0);
  const [last, setLast] = useState({ key: "", next: 0, isBusy: false }); // the last look
  const [{ image, target, filters, layers, problem }, setSeen] = useState({});
  const isTraining = isActive(findJob(run.name));
  const key = `${row} ${isTraining} ${run.rows.length}`;
  const look = async () => {
    const began = performance.now();
    setLast({ key, next: 0, isBusy: true });
    const tell = (error) => ({ problem: error.message });
    const seen = await askLast("look", { run: run.name, image: ["", row] }, "live").catch(tell);
    // the weights are saved after the first epochs; the next epoch looks again
    if (!seen.problem || !isTraining) setSeen(seen);
    const end = performance.now();
    setLast({ key, next: end + Math.max(LOOK_MS, REST * (end - began)), isBusy: false });
  };
  useEffect(() => {
    if (!isOpen || document.hidden || last.isBusy || last.key === key || !run.rows.length) return;
    const isNext = isTraining && last.key.startsWith(`${row} true`); // only the next epochs wait
    const timer = setTimeout(look, isNext ? last.next - performance.now() : 0);
    return () => clearTimeout(timer);
  }, [key, isOpen, document.hidden, last.isBusy]);
  if (!run.rows.length) return null;
  const statistics = run.rows.findLast((epoch) => epoch.layers)?.layers;
  const title = html`<h3 id="live-title">Inside the net${isTraining ? ", now" : ""}</h3>`;
  return html`<${Details} id="live" open=${isOpen} onToggle=${({ target: { open } }) => setOpen(open)} summary=${title}>
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
    ${["gradient", "dead units"].map((name) => html`<${Note}>${name} <${Term} name=${name} /></${Note}>`)}
    <${Table} heads=${heads} rows=${rows} caption="Statistics after the last measured epoch" />
  </${Details}>`;
}

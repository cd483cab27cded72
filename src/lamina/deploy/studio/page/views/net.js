// Step 2: the net. Cards and Python are two views of one value, which the studio parses.

import { CHOOSE, WAIT_MS, draw, drawExample, findKey, type, usePreset } from "../actions/net.js";
import { Button, Details, Note, Problem, plural, short } from "../parts.js";
import { html, useEffect } from "../preact.js";
import { state } from "../state.js";
import { AddLayer, Cards } from "./cards.js";
import { Flow } from "./flow.js";
import { Term } from "./term.js";

export const CHOSEN =
  "lamina tries several nets on your images and trains the best within the time limit. " +
  "It chooses the image size and all settings, too.";
const KINDS = { cnn: "convolutions", mlp: "no convolutions", photo: "for photos" };
const SIZES = { s: "small", m: "medium", l: "large" };

export function summarizeNet() {
  const { isChosen, preset, cards, parameters, problem } = state.net;
  if (isChosen) return "chosen by lamina";
  if (problem) return "not valid yet";
  return `${preset || plural(cards.length, "layer")}, ${short(parameters)} parameters`;
}

function describeCosts() {
  const { cards, parameters, multiplyAdds } = state.net;
  const size = `${plural(cards.length, "layer")}, ${short(parameters)} parameters`;
  return `${size}, ${short(multiplyAdds)} multiply-adds per image.`;
}

function describePreset(name) {
  const [kind, size] = name.split("-");
  const words = [SIZES[size], KINDS[kind]].filter(Boolean).join(", ");
  return words ? `${name}: ${words}` : name;
}

export function NetStep() {
  const { preset, isChosen } = state.net;
  const presets = state.presets.map(({ name }) => [name, describePreset(name)]);
  const options = [[CHOOSE, "Choose for me"], ...presets, ["", "your own layers"]];
  return html`
    <div class="row">
      <label for="preset">Start from</label>
      <select id="preset" value=${isChosen ? CHOOSE : preset} onChange=${({ target }) => usePreset(target.value)}>
        ${options.map(([value, title]) => html`<option value=${value}>${title}</option>`)}
      </select>
    </div>
    ${isChosen ? html`<${Note} id="net-chosen">${CHOSEN}</${Note}>` : html`<${Layers} />`}
  `;
}

function Layers() {
  const { text, typed: typedText, problem, cards } = state.net;
  const key = findKey();
  useEffect(() => {
    const waiting = setTimeout(() => draw(key), 2 * WAIT_MS);
    return () => clearTimeout(waiting);
  }, [key]);
  const isShown = cards.some((card) => card.problem && problem?.includes(card.problem)); // on its card
  const showAnother = () => drawExample(Math.floor(Math.random() * state.preview.images.train));
  return html`
    <${Flow} cards=${cards} shape=${state.preview?.shape} image=${state.forward?.image} />
    <${Note} id="net-total">${key && describeCosts()}</${Note}>
    <p class="note" hidden=${!key}>
      parameters <${Term} name="parameters" /> multiply-adds <${Term} name="multiply-adds" />
    </p>
    <${Button} small disabled=${!state.forward || !key} onClick=${showAnother}>Another image</${Button}>
    <${Cards} cards=${cards} />
    <${AddLayer} cards=${cards} />
    <${Problem} id="net-problem" text=${isShown ? null : problem} />
    <${Details} summary="As Python">
      <label for="python" class="note">The same layers as text. What you change here changes the cards.</label>
      <textarea id="python" rows="7" spellcheck=${false} aria-label="Python" aria-invalid=${Boolean(problem)}
        value=${typedText ?? text} onInput=${type}></textarea>
    </${Details}>
  `;
}

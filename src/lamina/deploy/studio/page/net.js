// Step 2: the net. Cards and Python are two views of one value, which the studio parses.

import { ask } from "./api.js";
import { Note, Problem, short } from "./parts.js";
import { html } from "./preact.js";
import { refreshPlan } from "./recipe.js";
import { change, changePart, state } from "./store.js";

export const CHOOSE = "choose";
const FIRST = "cnn";
const OWN = "Flatten(), Output()";
const WAIT_MS = 250; // after the last key
let timer = 0;
let asked = 0; // number of the last request, whose response counts
let reading = Promise.resolve(); // until what was typed and clicked so far is shown

export function startNet(kept) {
  if (kept?.isChosen) usePreset(CHOOSE);
  else if (kept?.text) useText(kept.text);
  else usePreset(FIRST);
}

// For images of one's own, lamina chooses the net and the recipe, as `lamina train --data` does.
export function useOwnData() {
  change({ time: "5m" });
  usePreset(CHOOSE);
}

export function usePreset(name) {
  if (name !== CHOOSE) return useText(state.presets.find((preset) => preset.name === name)?.text ?? OWN);
  clearTimeout(timer);
  [timer, asked] = [0, asked + 1]; // whatever was typed before
  changePart("net", { text: "", preset: "", isChosen: true, problem: null });
  refreshPlan();
  return reading;
}

export function useText(text) {
  changePart("net", { text, isChosen: false });
  return read({ text });
}

// Reads the net again, for other data.
export function refreshNet() {
  if (!state.net.isChosen) read({ text: state.net.text });
}

// Waits until `state.net` is what was typed or clicked last.
export function settleNet() {
  if (timer) read({ text: state.net.text });
  return reading;
}

function read(values) {
  clearTimeout(timer);
  timer = 0;
  reading = Promise.all([reading, parse(values)]);
  return reading;
}

// Asks for the cards of a net, given as text or as edited cards.
async function parse(values) {
  const turn = ++asked;
  const { shape = null, outputs = null } = state.preview ?? {};
  const found = await ask("net", { ...values, shape, outputs }).catch((error) => ({
    cards: null,
    problem: error.message,
  }));
  if (turn !== asked) return;
  const text = found.text ?? values.text;
  const preset = state.presets.find((known) => known.text === text);
  const known = found.cards
    ? { cards: found.cards, parameters: found.parameters, multiplyAdds: found.multiply_adds }
    : {};
  changePart("net", { text, preset: preset?.name ?? "", isChosen: false, problem: found.problem, ...known });
  refreshPlan();
}

export function summarizeNet() {
  const { isChosen, preset, cards, parameters } = state.net;
  if (isChosen) return "chosen by lamina";
  return `${preset || `${cards.length} layers`}, ${short(parameters)} parameters`;
}

export function NetStep() {
  const { text, preset, isChosen, problem, cards } = state.net;
  const type = ({ target }) => {
    changePart("net", { text: target.value });
    clearTimeout(timer);
    asked += 1; // a response on its way must not replace what is typed
    timer = setTimeout(() => read({ text: target.value }), WAIT_MS);
  };
  const options = [[CHOOSE, "Choose for me"], ...state.presets.map(({ name }) => [name, name]), ["", "your own layers"]];
  return html`
    <div class="row">
      <label for="preset">Start from</label>
      <select id="preset" value=${isChosen ? CHOOSE : preset} onChange=${({ target }) => usePreset(target.value)}>
        ${options.map(([value, title]) => html`<option value=${value}>${title}</option>`)}
      </select>
    </div>
    ${isChosen && html`<${Note}>lamina chooses the net, the image size and the recipe by measurement, for your data and time limit.</${Note}>`}
    <div hidden=${isChosen}>
      <ol id="layers" aria-label="Layers">${cards.map((card) => html`<li class="card">${card.text}</li>`)}</ol>
      <${Problem} id="net-problem" text=${problem} />
      <label for="python">Python</label>
      <textarea id="python" rows="7" spellcheck="false" value=${text} onInput=${type}></textarea>
    </div>
  `;
}

// Actions on the net: type, choose and edit it, and draw what it makes of an image untrained.

import { ask, askLast } from "../api.js";
import { change, changePart, describeSource, state } from "../state.js";
import { refreshPlan, useRecipeOf } from "./plan.js";

export const CHOOSE = "choose";
const FEW_IMAGES = 500; // with fewer, a minute is enough to choose a net
const FIRST = "cnn";
const OWN = "Flatten(), Output()";
export const WAIT_MS = 250; // after the last key
let timer = 0;
let asked = 0; // number of the last request, whose response counts
let typed = 0; // number of the last text or preset
let lastId = 0; // of the cards
let reading = Promise.resolve(); // until what was typed and clicked so far is shown

export function startNet(kept) {
  const text = kept?.typed ?? kept?.text;
  changePart("net", { filledTime: kept?.filledTime ?? "" });
  if (text) useText(text);
  else usePreset(kept?.isChosen ? CHOOSE : FIRST);
}

// For images of one's own, as `lamina train --data` does. A time limit that is filled in stays.
export const useOwnData = () => usePreset(CHOOSE);

export function usePreset(name) {
  const preset = state.presets.find((known) => known.name === name);
  if (name !== CHOOSE) return useText(preset?.text ?? OWN, preset?.name);
  clearTimeout(timer);
  [timer, asked, typed] = [0, asked + 1, typed + 1]; // whatever was typed before
  changePart("net", { text: "", typed: null, preset: "", isChosen: true, problem: null });
  fillTime();
  refreshPlan();
  return reading;
}

// The usual time limit for choosing a net and training it.
export function findChoosingTime() {
  const images = Object.values(state.preview?.images ?? {}).reduce((sum, size) => sum + size, 0);
  return state.preview && images < FEW_IMAGES ? "1m" : "5m";
}

// Fills in the time limit for choosing; one that was typed stays.
function fillTime() {
  if (state.time && state.time !== state.net.filledTime) return;
  const filledTime = findChoosingTime();
  changePart("net", { filledTime });
  change({ time: filledTime });
}

export function useText(text, preset = "") {
  if (state.net.isChosen && state.time === state.net.filledTime) change({ time: "" }); // which only choosing needs
  changePart("net", { text, typed: null, preset, isChosen: false });
  return read(text);
}

// Reads the net again, for other data, once the last edit is shown.
export function refreshNet() {
  reading = reading.then(() => (state.net.isChosen ? fillTime() : parse(state.net.typed ?? state.net.text)));
}

export function type({ target }) {
  clearTimeout(timer);
  asked += 1; // a response on its way must not replace what is typed
  timer = setTimeout(settleNet, WAIT_MS);
  changePart("net", { typed: target.value });
}

// Waits until `state.net` is what was typed or clicked last.
export function settleNet() {
  return timer ? read(state.net.typed) : reading;
}

function read(text) {
  clearTimeout(timer);
  [timer, typed] = [0, typed + 1];
  reading = Promise.all([reading, parse(text)]);
  return reading;
}

// Edits the list of cards by `apply`, once what was typed and clicked before is shown.
export function edit(id, apply) {
  const before = settleNet();
  const turn = typed;
  const run = async () => {
    if (turn !== typed) return; // another text or preset was chosen meanwhile
    const cards = [...state.net.cards];
    const place = cards.findIndex((card) => card.id === id);
    if (id && place < 0) return; // it was removed
    apply(cards, place);
    await parse(null, cards);
  };
  // the next edit still works
  reading = before.then(run).catch((error) => changePart("net", { problem: error.message }));
  return reading;
}

export function makeId() {
  return ++lastId;
}

// Asks for the cards of a text, which stays as it is typed, or of cards that were edited.
async function parse(typedText, edited) {
  const turn = ++asked;
  const { shape = null, outputs = null } = state.preview ?? {};
  const layers = edited ? { cards: edited.map((card) => card.text) } : { text: typedText };
  const net = await ask("net", { ...layers, shape, outputs }).catch(({ message }) => ({ problem: message }));
  if (turn !== asked) return;
  const { text = typedText ?? state.net.text, problem, cards, parameters, multiply_adds: multiplyAdds } = net;
  const preset = state.presets.find((known) => known.text === text)?.name ?? "";
  changePart("net", { text, preset, problem, typed: edited ? null : state.net.typed });
  if (cards) changePart("net", { cards: identify(cards, edited), parameters, multiplyAdds });
  useRecipeOf(preset);
  refreshPlan();
}

// Edited cards keep their ids and what was typed, even if wrong; others if their text is the same.
function identify(cards, edited) {
  return cards.map((card, place) => {
    const before = (edited ?? state.net.cards)[place];
    const isSame = before && (edited || before.text === card.text);
    const typedInto = isSame && !card.name ? { name: before.name, arguments: before.arguments } : {};
    return { ...typedInto, ...card, id: isSame ? before.id : makeId() };
  });
}

// What the cards say, as text; drawings are of these layers, whatever is being typed.
function writeCards() {
  return state.net.cards.map(({ text }) => text).join(",\n");
}

// For which layers and data drawings are; "" if there can be none.
export function findKey() {
  const { net, preview } = state;
  const hasCosts = preview && !net.isChosen && !net.problem && net.cards.length > 0;
  return hasCosts ? JSON.stringify([writeCards(), preview.shape, preview.outputs, describeSource()]) : "";
}

// Draws what the untrained net makes of an image.
export async function draw(key) {
  if (key && state.forward?.key !== key) await drawExample(state.forward?.row ?? 0);
}

export async function drawExample(row) {
  const key = findKey();
  if (!key) return; // the data set is being read again
  const ids = state.net.cards.map(({ id }) => id);
  const values = { ...describeSource(), text: writeCards(), row: row % state.preview.images.train };
  const example = await askLast("forward", values).catch(() => null);
  if (!example || key !== findKey()) return;
  const drawings = Object.fromEntries(example.layers.map((layer, place) => [ids[place], layer]));
  change({ forward: { key, row, image: example.image, drawings } });
}

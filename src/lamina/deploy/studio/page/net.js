// The net: cards and Python are two views of one value, which the studio parses.

import { ask } from "./api.js";
import { fill, find, findKey, make, redraw, short, tell } from "./elements.js";
import { announce, chosen, listen, state } from "./shared.js";

const CHOOSE = "choose";
const WAIT_MS = 250; // after the last key
let cards = [];
let asked = 0; // number of the last request, whose response counts
let timer = 0;

export function startNet() {
  const presets = state.presets.map(({ name }) => [name, name]);
  fill(find("preset"), [...presets, ["", "your own layers"], [CHOOSE, "Choose for me"]], "cnn");
  find("preset").addEventListener("change", usePreset);
  fill(find("kind"), state.layers.map(({ name }) => [name, name]).sort(), "Conv2d");
  find("kind").addEventListener("change", explainKind);
  find("add").addEventListener("click", add);
  find("python").addEventListener("input", () => {
    clearTimeout(timer);
    asked += 1; // a response on its way must not replace what is typed
    timer = setTimeout(() => read({ text: find("python").value }, true), WAIT_MS);
  });
  listen("preview", () => chosen.net.isChosen || read({ text: find("python").value }));
  explainKind();
  usePreset();
}

function explainKind() {
  find("kind").title = state.layers.find(({ name }) => name === find("kind").value).meaning;
}

export function usePreset(given) {
  if (typeof given === "string") find("preset").value = given;
  const name = find("preset").value;
  if (!name) return useText(find("python").value);
  const isChosen = name === CHOOSE;
  find("net-editor").hidden = isChosen;
  find("net-chosen").hidden = !isChosen;
  chosen.net = { ...chosen.net, preset: isChosen ? "" : name, isChosen, problem: null };
  if (isChosen) announce("net", chosen.net);
  else return read({ text: state.presets.find((one) => one.name === name).text });
}

export function useText(text) {
  find("net-editor").hidden = false;
  find("net-chosen").hidden = true;
  return read({ text });
}

// Asks for the cards of a net and shows them; while somebody types, the text stays as it is.
async function read(given, isTyped = false) {
  const own = ++asked;
  const { shape = null, outputs = null } = chosen.preview ?? {};
  let found;
  try {
    found = await ask("net", { ...given, shape, outputs });
  } catch (error) {
    found = { cards: null, problem: error.message };
  }
  if (own !== asked) return;
  tell(find("net-problem"), found.problem);
  find("python").setAttribute("aria-invalid", String(Boolean(found.problem)));
  if (found.cards !== null) {
    cards = found.cards;
    if (!isTyped) find("python").value = found.text;
    showCards();
    find("net-total").textContent = chosen.preview && !found.problem
      ? `${cards.length} layers, ${short(found.parameters)} parameters, ${short(found.multiply_adds)} multiply-adds for an image` : "";
  }
  const text = found.text ?? find("python").value;
  const preset = state.presets.find((one) => one.text === text);
  chosen.net = { text, preset: preset?.name ?? "", isChosen: false, problem: found.problem };
  find("preset").value = preset?.name ?? "";
  announce("net", chosen.net);
  if (!found.problem && chosen.preview) measure(own);
}

async function measure(own) {
  await new Promise((resolve) => setTimeout(resolve, 2 * WAIT_MS));
  if (own !== asked) return; // somebody goes on editing
  let times;
  try {
    times = await ask("times", { text: chosen.net.text, shape: chosen.preview.shape, outputs: chosen.preview.outputs });
  } catch {
    return; // the cards are complete without them
  }
  if (own !== asked) return;
  const slowest = Math.max(...times);
  for (const [place, item] of [...find("layers").children].entries()) {
    const bar = item.querySelector(".time");
    bar.textContent = `${times[place].toFixed(times[place] < 1 ? 2 : 1)} ms`;
    bar.title = "forward and backward, 64 images, one core of this machine";
    bar.style.setProperty("--part", `${Math.round(100 * times[place] / slowest)}%`);
  }
}

// Edits the cards, and moves the focus to the element with a key.
async function change(edit, key) {
  edit(cards);
  // Only an edited card has its arguments by name.
  await read({ cards: cards.map((card) => (Array.isArray(card.arguments) ? { text: card.text } : card)) });
  if (key) (findKey(find("layers"), key) ?? find("add")).focus();
}

function add() {
  const { text } = state.layers.find(({ name }) => name === find("kind").value);
  const place = cards.at(-1)?.name === "Output" ? cards.length - 1 : cards.length;
  change((all) => all.splice(place, 0, { text }));
}

function move(from, to) {
  if (to < 0 || to >= cards.length || from === to) return;
  change((all) => all.splice(to, 0, ...all.splice(from, 1)), `${from < to ? "down" : "up"}-${to}`);
}

function showCards() {
  redraw(find("layers"), ...cards.map(showCard));
}

function showCard(card, place) {
  const label = `layer ${place + 1}, ${card.name ?? "invalid"}`;
  const button = (text, name, key, act) => make("button", { type: "button", className: "small", ariaLabel: `${name} ${label}`,
    title: name, data: { key: `${key}-${place}` }, on: { click: act } }, text);
  const size = card.shape ? card.shape.join("×") : "";
  const costs = card.shape ? [make("span", { title: "output shape" }, size),
    make("span", { title: "parameters" }, card.parameters ? `${short(card.parameters)} par.` : ""),
    make("span", { title: "multiply-adds for an image" }, card.multiply_adds ? `${short(card.multiply_adds)} m-a.` : ""),
    make("span", { title: "receptive field: the part of the image that a unit sees" }, card.field ?? "")] : [];
  const item = make("li", { className: card.problem ? "card wrong" : "card", draggable: true, data: { place: String(place) } },
    make("div", { className: "head" },
      make("strong", {}, card.name ?? card.text),
      make("span", { className: "time" }),
      make("span", { className: "tools" },
        button("↑", "Move up", "up", () => move(place, place - 1)),
        button("↓", "Move down", "down", () => move(place, place + 1)),
        button("×", "Remove", "remove", () => change((all) => all.splice(place, 1), `remove-${Math.min(place, cards.length - 1)}`)))),
    make("div", { className: "costs" }, ...costs),
    showArguments(card, place, label),
    card.problem ? make("p", { className: "problem" }, card.problem) : null);
  item.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/x-layer", String(place)));
  item.addEventListener("dragover", (event) => event.dataTransfer.types.includes("text/x-layer") && event.preventDefault());
  item.addEventListener("drop", (event) => {
    const from = event.dataTransfer.getData("text/x-layer");
    if (from !== "") {
      event.preventDefault();
      move(Number(from), place);
    }
  });
  return item;
}

// Inputs for the required and changed arguments; the others under "more".
function showArguments(card, place, label) {
  const edit = (apply) => change((all) => { all[place] = apply(all[place]); });
  if (!card.arguments) {
    return make("textarea", { value: card.text, rows: 2, spellcheck: false, data: { key: `text-${place}` }, ariaLabel: `Text of ${label}`,
      on: { change: (event) => edit(() => ({ text: event.target.value })) } });
  }
  const input = ({ name, value, default: usual }) => make("label", {}, `${name} `, make("input", { value, placeholder: usual, spellcheck: false,
    data: { key: `${name}-${place}` }, size: Math.max(4, value.length),
    on: { change: (event) => edit((old) => ({ name: old.name, arguments: Object.fromEntries(old.arguments
      .map((one) => [one.name, one.name === name ? event.target.value : one.value])
      .filter(([own, text]) => text !== old.arguments.find((one) => one.name === own).default)) })) } }));
  const [main, more] = [(one) => one.default === "" || one.value !== one.default, (one) => one.default !== "" && one.value === one.default]
    .map((belongs) => card.arguments.filter(belongs));
  return make("div", { className: "arguments" }, ...main.map(input),
    more.length ? make("details", { data: { key: `more-${place}` } }, make("summary", { ariaLabel: `More arguments of ${label}` }, "more"), ...more.map(input)) : null);
}

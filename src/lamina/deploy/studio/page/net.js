// The net: cards and Python are two views of one value, which the studio parses.

import { ask, askLast } from "./api.js";
import { fill, find, findKey, make, redraw, short, tell } from "./elements.js";
import { announce, chosen, isActive, listen, state } from "./shared.js";

const CHOOSE = "choose";
const WAIT_MS = 250; // after the last key
let cards = [];
let lastId = 0; // of the cards
let at = null; // place of the card that had the focus last
let asked = 0; // number of the last request, whose response counts
let measured = 0; // number of the request whose layers were timed
let reading = Promise.resolve(); // until what was typed and clicked so far is shown
let timing = Promise.resolve(); // one request at a time
let timer = 0;
let typed = 0; // number of the last text or preset

export function startNet() {
  const presets = state.presets.map(({ name }) => [name, name]);
  fill(find("preset"), [...presets, ["", "your own layers"], [CHOOSE, "Choose for me"]], "cnn");
  find("preset").addEventListener("change", usePreset);
  fill(find("kind"), state.layers.map(({ name }) => [name, name]).sort(), "Conv2d");
  find("kind").addEventListener("change", explainKind);
  find("add").addEventListener("click", add);
  find("layers").addEventListener("focusin", ({ target }) => {
    at = Number(target.closest(".card").dataset.place);
  });
  find("python").addEventListener("input", () => {
    clearTimeout(timer);
    asked += 1; // a response on its way must not replace what is typed
    timer = setTimeout(readTyped, WAIT_MS);
  });
  listen(
    "preview",
    (preview) =>
      preview &&
      !chosen.net.isChosen &&
      read({ text: find("python").value }, document.activeElement === find("python")),
  );
  listen("start", explainKind);
  listen("start", () =>
    find("preset").value !== CHOOSE && find("python").value ? useText(find("python").value) : usePreset(),
  );
  listen("run", () => measure(asked)); // a training may have ended
}

function explainKind() {
  find("kind-note").textContent =
    state.layers.find(({ name }) => name === find("kind").value).meaning.replaceAll("``", "") + ".";
}

export function usePreset(given) {
  if (typeof given === "string") find("preset").value = given;
  const name = find("preset").value;
  if (!name) return useText(find("python").value);
  if (name !== CHOOSE) return useText(state.presets.find((one) => one.name === name).text);
  clearTimeout(timer);
  [timer, asked, typed] = [0, asked + 1, typed + 1]; // whatever was typed before
  showEditor(false);
  chosen.net = { text: "", preset: "", isChosen: true, problem: null };
  announce("net", chosen.net);
}

export function useText(text) {
  showEditor(true);
  find("python").value = text;
  typed += 1;
  return read({ text });
}

function showEditor(isShown) {
  find("net-editor").hidden = !isShown;
  find("net-chosen").hidden = isShown;
}

function readTyped() {
  typed += 1;
  return read({ text: find("python").value }, true);
}

// Waits until `chosen.net` is what was typed or clicked last.
export function settleNet() {
  if (timer) readTyped();
  return reading;
}

function read(given, isTyped = false) {
  clearTimeout(timer);
  timer = 0;
  if (given.text !== undefined) at = null;
  reading = Promise.all([reading, show(given, isTyped)]);
  return reading;
}

// Asks for the cards of a net and shows them; while somebody types, the text stays as it is.
async function show(given, isTyped, edited = cards) {
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
    cards = found.cards.map((card, place) => ({ ...card, id: findId(edited[place], card, given) }));
    if (!isTyped) find("python").value = found.text;
    redraw(find("layers"), ...cards.map(showCard));
    find("net-total").textContent =
      chosen.preview && !found.problem
        ? `${cards.length} layers, ${short(found.parameters)} parameters, ` +
          `${short(found.multiply_adds)} multiply-adds per image.`
        : "";
  }
  const text = found.text ?? find("python").value;
  const preset = state.presets.find((one) => one.text === text);
  chosen.net = { text, preset: preset?.name ?? "", isChosen: false, problem: found.problem };
  find("preset").value = preset?.name ?? "";
  announce("net", chosen.net);
  measure(own);
}

// Cards that were edited keep their ids; of a new text, those whose layers are at their place.
function findId(before, card, { cards: isEdited }) {
  const isSame = before?.id && (isEdited || before.text === card.text);
  return isSame ? before.id : ++lastId;
}

// Times the layers when nobody edits them, and nothing else computes.
async function measure(own) {
  await new Promise((resolve) => setTimeout(resolve, 2 * WAIT_MS));
  const isBusy = [...state.jobs.values()].some(isActive);
  if (own !== asked || own === measured || chosen.net.problem || chosen.net.isChosen || !chosen.preview || isBusy)
    return;
  measured = own;
  const given = {
    text: chosen.net.text,
    shape: chosen.preview.shape,
    outputs: chosen.preview.outputs,
  };
  timing = timing
    .then(() => own === asked && askLast("times", given))
    .catch((error) => {
      if (own === asked) find("net-total").append(` The cards show no times: ${error.message}`);
    });
  const times = await timing;
  if (own !== asked || !times) return;
  const slowest = Math.max(...times);
  for (const [place, item] of [...find("layers").children].entries()) {
    const bar = item.querySelector(".time");
    bar.textContent = `${times[place].toFixed(times[place] < 1 ? 2 : 1)} ms`;
    bar.style.setProperty("--part", `${Math.round((100 * times[place]) / slowest)}%`);
  }
}

// Edits a card, once what was typed and clicked before is shown: `edit` gets all cards and the
// place of this one. The element with the key that it returns gets the focus.
function change(card, edit) {
  const before = settleNet(),
    own = typed;
  reading = before
    .then(async () => {
      if (own !== typed) return; // another text or preset was chosen meanwhile
      const all = [...cards];
      const place = all.findIndex(({ id }) => id === card?.id); // in the last response
      if (card && place < 0) return; // it was removed
      const key = edit(all, place);
      await show({ cards: all.map(({ text }) => text) }, false, all);
      if (key) (findKey(find("layers"), key) ?? find("add")).focus();
    })
    .catch((error) => tell(find("net-problem"), error.message)); // the next edit still works
  return reading;
}

// Adds a layer after the card that had the focus last, or before the output.
async function add() {
  const { text } = state.layers.find(({ name }) => name === find("kind").value);
  const added = { text, id: ++lastId };
  await change(null, (all) => {
    const last = all.at(-1)?.name === "Output" ? all.length - 1 : all.length;
    all.splice(at === null ? last : Math.min(at + 1, last), 0, added);
  });
  const item = find("layers").children[cards.findIndex(({ id }) => id === added.id)];
  (item?.querySelector(".arguments > label input, textarea") ?? item?.querySelector("button"))?.focus();
}

function move(card, step) {
  change(card, (all, from) => {
    const to = Math.max(0, Math.min(from + step, all.length - 1));
    all.splice(to, 0, ...all.splice(from, 1));
    return `${step > 0 ? "down" : "up"}-${to}`;
  });
}

function showCard(card, place) {
  const label = `layer ${place + 1}, ${card.name ?? "invalid"}`;
  const button = (text, name, key, act) =>
    make(
      "button",
      {
        type: "button",
        className: "small",
        ariaLabel: `${name} ${label}`,
        title: name,
        data: { key: `${key}-${place}` },
        on: { click: act },
      },
      text,
    );
  const costs = card.shape
    ? [
        card.shape.join("×"),
        card.parameters ? `${short(card.parameters)} par.` : "",
        card.multiply_adds ? `${short(card.multiply_adds)} m-a.` : "",
        card.field ?? "",
      ]
    : [];
  const item = make(
    "li",
    {
      className: card.problem ? "card wrong" : "card",
      draggable: true,
      data: { place: String(place) },
    },
    make(
      "div",
      { className: "head" },
      make("strong", {}, card.name ?? card.text),
      make("span", { className: "time" }),
      make(
        "span",
        { className: "tools" },
        button("↑", "Move up", "up", () => move(card, -1)),
        button("↓", "Move down", "down", () => move(card, 1)),
        button("×", "Remove", "remove", () =>
          change(card, (all, own) => all.splice(own, 1) && `remove-${Math.min(own, all.length - 1)}`),
        ),
      ),
    ),
    make("div", { className: "costs" }, ...costs.map((text) => make("span", {}, text))),
    showArguments(card, place, label),
    card.problem ? make("p", { className: "problem" }, card.problem) : null,
  );
  item.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/x-layer", String(place)));
  item.addEventListener(
    "dragover",
    (event) => event.dataTransfer.types.includes("text/x-layer") && event.preventDefault(),
  );
  item.addEventListener("drop", (event) => {
    const from = event.dataTransfer.getData("text/x-layer");
    if (from !== "") {
      event.preventDefault();
      if (from !== String(place)) move(cards[from], place - from);
    }
  });
  return item;
}

// Inputs for the required and changed arguments; the others under "more".
function showArguments(card, place, label) {
  const edit = async (apply) => {
    // a button that is pressed must stay
    while (find("layers").matches(":active")) await new Promise((resolve) => setTimeout(resolve, 20));
    change(card, (all, own) => {
      all[own] = { ...all[own], ...apply(all[own]) };
    });
  };
  if (!card.arguments) {
    return make("textarea", {
      defaultValue: card.text,
      rows: 2,
      spellcheck: false,
      data: { key: `text-${place}` },
      ariaLabel: `Text of ${label}`,
      on: { change: (event) => edit(() => ({ text: event.target.value })) },
    });
  }
  const input = ({ name, value, default: usual }) =>
    make(
      "label",
      {},
      `${name} `,
      make("input", {
        defaultValue: value,
        placeholder: usual,
        spellcheck: false,
        data: { key: `${name}-${place}` },
        size: Math.max(4, value.length),
        on: {
          change: (event) =>
            edit(
              (old) =>
                old.arguments && {
                  text: `${old.name}(${old.arguments
                    .map((one) => ({
                      ...one,
                      value: one.name === name ? event.target.value.trim() : one.value,
                    }))
                    .filter((one) => one.value && one.value !== one.default)
                    .map((one) => `${one.name}=${one.value}`)
                    .join(", ")})`,
                },
            ),
        },
      }),
    );
  const [main, more] = [
    (one) => one.default === "" || one.value !== one.default,
    (one) => one.default !== "" && one.value === one.default,
  ].map((belongs) => card.arguments.filter(belongs));
  return make(
    "div",
    { className: "arguments" },
    ...main.map(input),
    more.length
      ? make(
          "details",
          { data: { key: `more-${place}` } },
          make("summary", { ariaLabel: `More arguments of ${label}` }, "more"),
          ...more.map(input),
        )
      : null,
  );
}

// The recipe: a form with the main fields, whose empty fields show what the recipe of the net says.

import { fill, find, make } from "./elements.js";
import { announce, chosen, listen, state } from "./shared.js";

export function startRecipe() {
  const [main, more] = [state.fields.slice(0, 5), state.fields.slice(5).filter(({ is_main: isMain }) => isMain)];
  const limit = "training ends within this time; the learning rate falls at the end";
  find("recipe").replaceChildren(
    make(
      "div",
      { className: "fields" },
      make(
        "label",
        {},
        "recipe",
        make("select", {
          id: "recipe-name",
          title: "a recipe that suits the net",
          on: { change: showDefaults },
        }),
      ),
      make("label", {}, "time limit", make("input", { id: "time", title: limit })),
      ...main.map((field) => makeField(field)),
    ),
    make(
      "details",
      {},
      make("summary", {}, "More settings"),
      make(
        "div",
        { id: "more-fields", className: "fields" },
        make(
          "label",
          {},
          "name of the run",
          make("input", {
            id: "run-name",
            title: "and of its folder",
            placeholder: "net and a number",
          }),
        ),
        ...more.map((field) => makeField(field)),
      ),
    ),
    make("p", { id: "explained", className: "note" }),
  );
  find("recipe").addEventListener("focusin", ({ target }) => {
    find("explained").textContent = target.title;
  });
  fill(
    find("recipe-name"),
    [...new Set(state.presets.flatMap(({ recipes }) => Object.keys(recipes)))].map((name) => [name, name]),
  );
  listen("net", showRecipes);
}

// A field of the form; `usual` is the value that applies while it is empty.
export function makeField({ name, text, choices }, form = "field", usual = "") {
  const title = name.replaceAll("_", " ");
  const own = { id: `${form}-${name}`, title: text };
  if (form !== "field") own.ariaLabel = `${title} from the saved epoch`;
  const options = ["", ...choices].map((value) => make("option", { value }, value || usual));
  return make(
    "label",
    {},
    title,
    choices.length
      ? make("select", own, ...options)
      : make("input", { ...own, placeholder: usual, spellcheck: false, autocomplete: "off" }),
  );
}

function listRecipes() {
  return state.presets.find(({ name }) => name === chosen.net.preset)?.recipes ?? { "": {} };
}

function showRecipes() {
  fill(
    find("recipe-name"),
    Object.keys(listRecipes()).map((name) => [name, name || (chosen.net.isChosen ? "chosen by lamina" : "default")]),
  );
  showDefaults();
}

// What applies to a field that is empty; lamina fits some of these values to the number of images.
function findDefault({ name, default: usual }) {
  return chosen.net.isChosen ? "chosen" : (listRecipes()[find("recipe-name").value]?.[name] ?? usual);
}

function showDefaults() {
  for (const field of state.fields) {
    const input = find(`field-${field.name}`),
      value = findDefault(field);
    if (input instanceof HTMLSelectElement) input.options[0].textContent = `${value} (recipe)`;
    else if (input) input.placeholder = value;
  }
  find("time").placeholder = chosen.net.isChosen ? "5m" : "none, or 60s, 5m";
  announce("recipe");
}

// The fields of the recipe that were given, by name.
export function readFields(form = "field") {
  const found = state.fields.map(({ name }) => [name, find(`${form}-${name}`)?.value.trim()]);
  return Object.fromEntries(found.filter(([, value]) => value));
}

// Fills fields of the form, which gets those that it does not have.
export function setFields(given) {
  for (const [name, value] of Object.entries(given)) {
    const field = state.fields.find((one) => one.name === name);
    if (field && value && !find(`field-${name}`)) find("more-fields").append(makeField(field));
    const input = find(`field-${name}`);
    if (!input) continue;
    input.value = value;
    if (value) input.closest("details")?.setAttribute("open", "");
  }
  showDefaults();
}

// Fills the form with the recipe of a run. The main fields are all filled, because lamina fits
// empty ones to the data.
export function useRecipe(recipe) {
  const read = (field) => (field.is_main || recipe[field.name] !== findDefault(field) ? recipe[field.name] : "");
  const values = state.fields.map((field) => [field.name, read(field)]);
  setFields(Object.fromEntries(values.map(([name, value]) => [name, value === "None" ? "" : value])));
}

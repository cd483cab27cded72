// The recipe: a form with the main fields, whose empty fields show what the recipe of the net says.

import { fill, find, make } from "./elements.js";
import { announce, chosen, listen, state } from "./shared.js";

export function startRecipe() {
  buildForm();
  listen("net", showRecipes);
}

function buildForm() {
  const field = ({ name, text, choices }) => {
    const own = { id: `field-${name}`, title: text, data: { field: name } };
    const input = choices.length ? make("select", own, make("option", { value: "" }, "from the recipe"), ...choices.map((one) => make("option", { value: one }, one)))
      : make("input", { ...own, spellcheck: false, autocomplete: "off" });
    return make("label", { title: text }, name.replaceAll("_", " "), input);
  };
  const [main, more] = [state.fields.slice(0, 5), state.fields.slice(5)];
  find("recipe").replaceChildren(
    make("div", { className: "fields" },
      make("label", {}, "recipe", make("select", { id: "recipe-name", on: { change: showDefaults } })),
      make("label", { title: "the training ends in time, with a fall of the learning rate" }, "time limit", make("input", { id: "time", placeholder: "none, or 60s, 5m" })),
      ...main.map(field)),
    make("details", { className: "more" }, make("summary", {}, "More settings"), make("div", { className: "fields" }, ...more.map(field),
      make("label", {}, "name of the run", make("input", { id: "run-name", placeholder: "date, net and a number" })))));
}

function findRecipe() {
  const preset = state.presets.find(({ name }) => name === chosen.net.preset);
  return preset?.recipes[find("recipe-name").value] ?? {};
}

function showRecipes() {
  const preset = state.presets.find(({ name }) => name === chosen.net.preset);
  fill(find("recipe-name"), preset ? Object.keys(preset.recipes).map((name) => [name, name]) : [["", chosen.net.isChosen ? "chosen by lamina" : "default"]]);
  showDefaults();
}

// The recipe's values stand in the empty fields; lamina fits some of them to the number of images.
function showDefaults() {
  const recipe = findRecipe();
  for (const { name, default: usual } of state.fields) {
    const input = find(`field-${name}`);
    const value = chosen.net.isChosen ? "chosen" : String(recipe[name] ?? usual);
    if (input instanceof HTMLSelectElement) input.options[0].textContent = value;
    else input.placeholder = value;
  }
  find("time").placeholder = chosen.net.isChosen ? "5m" : "none, or 60s, 5m";
  announce("recipe");
}

// The fields of the recipe that were given, by name.
export function readFields() {
  const given = {};
  for (const { name } of state.fields) {
    const value = find(`field-${name}`).value.trim();
    if (value) given[name] = value;
  }
  return given;
}

// Fills fields of the form, as a lesson or a diagnosis suggests.
export function setFields(given) {
  for (const [name, value] of Object.entries(given)) {
    const input = find(`field-${name}`);
    if (!input) continue; // a setting that the form does not have
    input.value = value;
    if (value) input.closest("details")?.setAttribute("open", "");
  }
}

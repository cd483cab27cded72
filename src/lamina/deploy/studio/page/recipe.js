// The recipe: fields whose placeholders are what the studio plans for this net and these data.

import { ask } from "./api.js";
import { describeSource } from "./data.js";
import { CHOOSING_TIME } from "./net.js";
import { Button, Details, Problem } from "./parts.js";
import { html, useState } from "./preact.js";
import { change, state } from "./store.js";

const MAIN = 3; // fields beside the time limit
const WAIT_MS = 250; // after the last key
const WORDS = { True: "yes", False: "no", None: "none" };
const TIME = { label: "Time limit", help: "Training ends within it, such as 60s, 5m or 1h." };
const NAME = { label: "Name of the run", help: "And of its folder; empty: the net and a number." };
const RECIPE_HELP = "Settings that suit this net; article: as published, best: for the best score.";
let timer = 0;
let asked = 0; // number of the last request for a plan, whose response counts

// The fields that were filled in, by name; lamina's choice has none.
export function readFields() {
  if (state.net.isChosen) return {};
  const filled = Object.entries(state.values).map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(filled.filter(([, value]) => value));
}

// What the steps say: the images, the net and the fields.
export function readSteps() {
  const { text, preset, isChosen } = state.net;
  const fields = { ...readFields(), recipe: preset && state.recipeName, time: state.time.trim() };
  return { ...describeSource(), net: isChosen ? "" : preset || text, fields };
}

export function setFields(values) {
  fill({ values: { ...state.values, ...values } });
}

// Changes what was filled in: values, time, recipeName.
function fill(texts) {
  change({ ...texts, trainingProblem: null });
  refreshPlan();
}

// Asks what Train would do with the data, the net and the fields.
export function refreshPlan() {
  clearTimeout(timer);
  asked += 1;
  timer = setTimeout(plan, WAIT_MS);
}

async function plan() {
  const turn = ++asked;
  if (!state.preview) return null;
  const planned = await ask("plan", readSteps()).catch(() => null);
  // an error keeps what the form showed
  if (turn === asked) change({ plan: planned?.problem ? { ...planned, fields: state.plan?.fields } : planned });
  return planned;
}

// Fills the form with all fields in which the recipe of a run differs from the plan.
export async function useRecipe(recipe) {
  const values = {};
  change({ values, recipeName: "", time: "" });
  while (!state.preview && !state.reading?.problem) await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  const planned = (await plan())?.fields ?? {};
  if (state.values !== values) return; // edited meanwhile
  const differing = Object.entries(recipe).filter(([name, value]) => value !== planned[name] && value !== "None");
  setFields(Object.fromEntries(differing));
}

// The names of the recipes of a preset, its default first.
function listRecipes(preset) {
  return Object.keys(state.presets.find(({ name }) => name === preset)?.recipes ?? {});
}

// A recipe of another net does not stay.
export function useRecipeOf(preset) {
  if (!listRecipes(preset).includes(state.recipeName)) change({ recipeName: "" });
}

// A field with its label and help; `placeholder` is the value that applies while it is empty.
export function Field({ field: { label, help, choices = [] }, value, placeholder = "", isWrong, onInput, id }) {
  const word = (text) => WORDS[text] ?? text;
  const common = { id, value, "aria-describedby": `${id}-help`, "aria-invalid": isWrong ? "true" : null };
  const type = ({ target }) => onInput(target.value);
  const show = (choice) => html`<option value=${choice}>${word(choice || placeholder)}</option>`;
  const select = html`<select ...${common} onChange=${type}>${["", ...choices].map(show)}</select>`;
  const input = html`<input ...${common} placeholder=${word(placeholder)} spellcheck=${false} autocomplete="off"
    onInput=${type} />`;
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${choices.length ? select : input}
    <span id=${`${id}-help`} hidden>${help}</span>
  </div>`;
}

// Fields, and below them a line with the help of the one that has the focus.
export function Helped({ id, note = "", children }) {
  const [help, setHelp] = useState("");
  const show = ({ target }) => {
    const description = document.getElementById(target.getAttribute("aria-describedby") ?? "");
    if (description) setHelp(description.textContent);
  };
  return html`<div id=${id} onFocusIn=${show} onFocusOut=${() => setHelp("")}>
    ${children}
    <p class="note help" aria-hidden=${help !== ""}>${help || note}</p>
  </div>`;
}

export function RecipeForm() {
  const { values, plan: planned, net, time, recipeName, runName } = state;
  const [isOpen, setOpen] = useState(false); // stays so if its last value is removed
  const recipes = listRecipes(net.preset);
  const usualTime = net.isChosen ? CHOOSING_TIME : "";
  const fields = net.isChosen ? [] : state.fields.filter(({ name, is_main: isMain }) => isMain || values[name]);
  const rest = fields.slice(MAIN);
  const isFilled = Object.keys(readFields()).length > 0 || recipeName || time !== usualTime;
  const reset = () => {
    fill({ values: {}, recipeName: "", time: usualTime });
    document.getElementById("time").focus();
  };
  const show = ({ name, ...field }) =>
    html`<${Field} key=${name} id=${`field-${name}`} field=${field} value=${values[name] ?? ""}
      placeholder=${planned?.fields?.[name]} isWrong=${planned?.field === name}
      onInput=${(text) => setFields({ [name]: text })} />`;
  return html`<${Helped} id="recipe" note=${describePlan()}>
    <div class="fields">
      <${Field} id="time" field=${TIME} value=${time} placeholder=${usualTime || "none"}
        isWrong=${time && planned?.problem?.includes(time)} onInput=${(text) => fill({ time: text })} />
      ${fields.slice(0, MAIN).map(show)}
    </div>
    <${Details} summary="More settings" onToggle=${({ target }) => setOpen(target.open)}
      open=${isOpen || recipeName !== "" || rest.some(({ name }) => values[name])}>
      <div class="fields">
        <${Field} id="run-name" field=${NAME} value=${runName} onInput=${(text) => change({ runName: text })} />
        ${
          recipes.length > 1 &&
          html`<${Field} id="recipe-name" field=${{ label: "Recipe", help: RECIPE_HELP, choices: recipes.slice(1) }}
            value=${recipeName} placeholder=${recipes[0]} onInput=${(text) => fill({ recipeName: text })} />`
        }
        ${rest.map(show)}
      </div>
    </${Details}>
    <${Problem} id="plan-problem" text=${planned?.problem} />
    ${isFilled && html`<${Button} id="reset" onClick=${reset}>Back to lamina’s settings</${Button}>`}
  </${Helped}>`;
}

function describePlan() {
  if (state.net.isChosen) return "lamina chooses all other settings.";
  return state.plan?.reason ? `Settings that you do not change are lamina’s, ${state.plan.reason}.` : "";
}

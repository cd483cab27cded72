// The recipe: fields whose placeholders are what the studio plans for this net and these data.

import { findChoosingTime } from "../actions/net.js";
import { fill, listRecipes, setFields } from "../actions/plan.js";
import { Button, Details, Problem } from "../parts.js";
import { html, useState } from "../preact.js";
import { change, readFields, state } from "../state.js";
import { Term } from "./term.js";

const MAIN = 3; // fields beside the time limit
const WORDS = { True: "yes", False: "no", None: "none" };
const TIME = { label: "Time limit", help: "Training ends within it, such as 60s, 5m or 1h." };
const NAME = { label: "Name of the run", help: "And of its folder; empty: the net and a number." };
const RECIPE_HELP = "Settings that suit this net; article: as published, best: for the best score.";

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
    <div><label for=${id}>${label}</label> <${Term} name=${label} /></div>
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
  const usualTime = net.isChosen ? findChoosingTime() : "";
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

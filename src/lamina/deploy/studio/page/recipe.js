// The recipe: fields whose placeholders are what the studio plans for this net and these data.

import { html } from "./preact.js";
import { change, state } from "./store.js";

// The fields that were filled in, by name.
export function readFields() {
  const filled = Object.entries(state.values).map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(filled.filter(([, value]) => value));
}

export function setFields(values) {
  change({ values: { ...state.values, ...values } });
}

// Asks what Train would do with the data, the net and the fields.
export function refreshPlan() {}

export function RecipeForm() {
  return html`<div id="recipe" class="fields">
    <label>Time limit <input id="time" value=${state.time} onInput=${({ target }) => change({ time: target.value })} /></label>
    ${state.fields.slice(0, 3).map(
      ({ name }) =>
        html`<label>${name} <input id=${`field-${name}`} value=${state.values[name] ?? ""} onInput=${({ target }) => setFields({ [name]: target.value })} /></label>`,
    )}
  </div>`;
}

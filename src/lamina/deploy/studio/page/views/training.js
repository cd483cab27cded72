// Step 3: starts a training, and completes the selected run by the events of its job.

import { findDataProblem } from "../actions/data.js";
import { train } from "../actions/training.js";
import { Note, Problem, plural } from "../parts.js";
import { html } from "../preact.js";
import { readFields, state } from "../state.js";
import { Changes } from "./further.js";
import { RecipeForm } from "./recipe.js";

export function summarizeTraining() {
  if (state.plan?.problem) return "not valid yet";
  if (state.time) return `within ${state.time}`;
  const epochs = Number(readFields().epochs ?? state.plan?.fields?.epochs);
  return epochs ? plural(epochs, "epoch") : "";
}

export function TrainingStep() {
  const reason = state.net.problem ? "Correct the error in the net to train." : findDataProblem();
  return html`
    <${RecipeForm} />
    <${Changes} />
    <div class="row actions">
      <button id="train" class="primary" type="button" aria-describedby="train-note"
        disabled=${Boolean(reason)} onClick=${train}>Train</button>
    </div>
    <${Note} id="train-note">${reason}</${Note}>
    <${Problem} id="training-problem" text=${state.plan?.problem ? null : state.trainingProblem} />
  `;
}

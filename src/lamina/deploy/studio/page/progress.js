// What is training and what waits, and how the selected run trains: status, progress, curves.

import { Curves } from "./curves.js";
import { Inside } from "./inside.js";
import { html } from "./preact.js";
import { findJob, findSelected, isActive, state } from "./store.js";
import { act } from "./training.js";

// The line in the header, which screen readers speak.
export function Status() {
  const text = state.connection.message || "Choose images and a net, and press Train. New here? Open the lessons.";
  return html`<p id="status" role="status">${text}</p>`;
}

// The running training and those that wait.
export function Queue() {
  const active = [...state.jobs.values()].filter((job) => job.run && isActive(job));
  return html`<ul id="queue" aria-label="Trainings">
    ${active.map((job) => html`<li>${job.run}: ${job.state}</li>`)}
  </ul>`;
}

// Name and result of the selected run, and its buttons.
export function RunHead() {
  const run = findSelected();
  if (!run) return null;
  const job = findJob(run.name);
  return html`<h2>${run.name} <span class="note">${run.score ?? ""}</span></h2>
    <button type="button" disabled=${!isActive(job)} onClick=${() => act("stop", run.name)}>Pause</button>`;
}

export function RunTraining({ run }) {
  return html`<${Curves} run=${run} /><${Inside} run=${run} />`;
}

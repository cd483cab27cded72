// Actions on labels: check them, and keep, change or leave out what is doubtful.

import { ask } from "../api.js";
import { load, save } from "../request.js";
import { change, changePart, describeSource, state } from "../state.js";
import { useSource } from "./data.js";

const changeLabels = (fields) => changePart("labels", fields);

// The last check, unless the visitor is done with it.
export function findCheck() {
  const done = state.labels.done ?? load("labels")?.done;
  return [...state.jobs.values()].findLast(({ checked, number }) => checked && number !== done);
}

// What a button does; its error is shown.
export const attempt = (act) => async () => {
  changeLabels({ problem: null });
  await act().catch((error) => changeLabels({ problem: error.message }));
};

export async function start() {
  const job = await ask("inspect", { ...describeSource(), labels: true });
  change({ jobs: new Map(state.jobs).set(job.number, job) });
  changeLabels({ choices: {}, progress: null });
}

export function receiveLabels(event) {
  const number = findCheck()?.number;
  if (!number || ![event.job, event.number].includes(number)) return;
  if (event.event === "progress") changeLabels({ progress: event });
  if (event.event === "job" && event.problem) changeLabels({ problem: event.problem });
}

// Chooses what happens to an image; the same choice again takes it back.
export async function choose({ checked }, image, text, label) {
  const isBack = state.labels.choices[image] === text;
  const corrections = await ask("correct", { source: checked.source, choices: { [image]: isBack ? "" : label } });
  const choices = { ...state.labels.choices, [image]: isBack ? null : text };
  changeLabels({ choices, size: Object.keys(corrections).length });
}

export async function undo() {
  await ask("correct", { source: state.source, choices: null });
  changeLabels({ choices: {} });
  await leave();
}

export async function finish({ number }) {
  save("labels", { done: number });
  changeLabels({ done: number });
  await leave();
}

function leave() {
  document.getElementById("source").focus();
  return useSource(state.source);
}

// The line in the header: what the selected run does, or what came of it.

import { count, duration, percent } from "../parts.js";
import { html, useEffect, useState } from "../preact.js";
import { findJob, findSelected, hasEnded, isActive, state } from "../state.js";
import { findMetric, formatScore } from "./curves.js";

// A result in the words of a beginner, with what guessing gets; other metrics than accuracy as they are.
export function describeResult({ score, score_value: value, images, is_better: isBetter, ...guess }) {
  const tell = (fraction) => count(fraction * images);
  const [title] = score.split(/ (?=\()/u);
  const result = images ? `right on ${tell(value)} of ${count(images)} new images` : title;
  if (!guess.baseline_text) return result;
  const guessed = images ? tell(guess.baseline_value) : guess.baseline_text;
  return isBetter === false
    ? `${result}, hardly better than guessing (${guessed})`
    : `${result}; guessing gets ${guessed}`;
}

const SAY_MS = 10_000; // least time between two texts that a screen reader speaks

export function Status() {
  const text = state.connection.message || describeSelected();
  return html`<p id="status" role="status" aria-live="off">${text}</p>
    <p id="spoken" aria-live="polite">${useSpoken(text)}</p>`;
}

// The text that a screen reader speaks: what is new at once; what only counts on, now and then.
function useSpoken(text) {
  const [spoken, speak] = useState({ text: "", kind: "", at: 0 });
  useEffect(() => {
    const kind = `${state.selected} ${text.replace(/[\d.,]+/gu, "")}`;
    const wait = kind === spoken.kind ? spoken.at + SAY_MS - performance.now() : 0;
    const timer = setTimeout(() => speak({ text, kind, at: performance.now() }), wait);
    return () => clearTimeout(timer);
  }, [text]);
  return spoken.text;
}

export function describeSelected() {
  if (!state.selected) return "Choose images and a net, and press Train.";
  const run = findSelected();
  if (!run) return "";
  const { name, rows } = run;
  const job = findJob(name);
  if (job?.state === "queued") return `${name} waits for the training before it`;
  const at = describeEpoch(run, job);
  if (isTraining(run)) {
    if (job.is_finishing) return `${at}, finishing, then testing …`;
    if (job.is_stopping) return hasBegun(run) ? `${at}, pausing …` : `${name}: ending …`;
    if (run.isEnding || (run.planned && rows.length >= run.planned)) return `${at}, testing …`;
    const left = describeTimeLeft(run, job);
    if (!hasBegun(run)) return `${name}: ${job.chooses_net ? "choosing the net" : "preparing"}${left}`;
    return `${at}${describeScore(rows.at(-1))}${left}`;
  }
  if (job?.state === "failed") return run.net ? `${name} was stopped after ${at}` : `${name} could not be trained`;
  if (!run.net) return `${name} ${job ? "was cancelled; nothing was saved" : "is no longer among the runs"}`;
  if (run.score) return `done: ${describeResult(run)}; ${name}`;
  return hasEnded(run) ? `done: ${name} has no score` : `paused at ${at}; Continue resumes exactly there`;
}

// Trained epochs, or the one in training. Within a time limit, nobody knows how many there will be.
function describeEpoch(run, job) {
  const trained = run.rows.length;
  const epoch = isTraining(run) && hasBegun(run) ? Math.min(trained + 1, run.planned || Infinity) : trained;
  return `epoch ${epoch}${run.planned && !(isTraining(run) && job.seconds) ? `/${run.planned}` : ""}`;
}

// For the page, a training ends when its run has been read again.
export function isTraining(run) {
  return isActive(findJob(run?.name)) || Boolean(run?.isEnding);
}

function hasBegun({ rows, steps }) {
  return rows.length + steps.length > 0;
}

function describeScore(row) {
  const name = findMetric(row);
  if (name) return `, ${name.replaceAll("_", " ")} ${formatScore(name, row[name])}`;
  return row?.train_accuracy == null ? "" : `, train accuracy ${percent(row.train_accuracy)}`;
}

function describeTimeLeft(run, job) {
  const limit = job.seconds;
  if (limit) return `, ${duration(limit - (Date.now() - job.began) / 1000)} of ${duration(limit)} left`;
  const [first, last] = [run.steps[0], run.steps.at(-1)]; // for the first epoch
  const pace = run.pace ?? run.rows.at(-1)?.train_seconds ?? (last?.seconds - first?.seconds) / (last?.at - first?.at);
  return pace && run.planned ? `, about ${duration(pace * (run.planned - (run.rows.length || last.at)))} left` : "";
}

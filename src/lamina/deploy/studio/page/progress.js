// What is training and what waits, and how the selected run trains: status, progress, curves.

import { Curves } from "./curves.js";
import { Inside } from "./inside.js";
import { Note, Problem, Progress, count, duration, percent, plain, plural } from "./parts.js";
import { html, useEffect, useRef, useState } from "./preact.js";
import { Further, selectRun } from "./runs.js";
import { change, findJob, findSelected, isActive, isBusy, state } from "./store.js";
import { act, applyChange } from "./training.js";

const SAY_MS = 10_000; // least time between two texts that a screen reader speaks
const MOST_DIAGNOSES = 3;

// The line in the header.
export function Status() {
  const text = state.connection.message || describeSelected();
  const spoken = useSpoken(text);
  useEffect(() => {
    // the time left counts down also during long steps, which have no events
    const timer = setInterval(() => isBusy() && change({}), 1000);
    return () => clearInterval(timer);
  }, []);
  return html`<p id="status" role="status" aria-live="off">${text}</p>
    <p id="spoken" aria-live="polite">${spoken}</p>`;
}

// The text that a screen reader speaks: what is new at once; of texts that only count on, the last
// every few seconds.
function useSpoken(text) {
  const [spoken, speak] = useState("");
  const { current: said } = useRef({ at: 0, kind: "" });
  useEffect(() => {
    const kind = `${state.selected} ${text.replace(/[\d.,]+/gu, "")}`;
    const wait = kind === said.kind ? said.at + SAY_MS - performance.now() : 0;
    const say = () => {
      Object.assign(said, { at: performance.now(), kind });
      speak(text);
    };
    const timer = setTimeout(say, wait);
    return () => clearTimeout(timer);
  }, [text]);
  return spoken;
}

function describeSelected() {
  const run = findSelected();
  if (run) return describe(run, findJob(run.name));
  return state.selected ? "" : "Choose images and a net, and press Train. New here? Open the lessons.";
}

function describe(run, job) {
  const { name, rows } = run;
  if (job?.state === "queued") return `${name} waits for the training before it`;
  const at = describeEpoch(run, job);
  if (isActive(job) && job.is_stopping) return `${at}, ${job.is_finishing ? "finishing" : "pausing …"}`;
  if (isActive(job) && !hasBegun(run))
    return `${at}, ${job.chooses_net ? "choosing the net" : "preparing"}${describeTimeLeft(run, job)}`;
  if (isActive(job) && run.planned && rows.length >= run.planned) return `${at}, evaluating`;
  if (isActive(job)) return `${at}${describeScore(rows.at(-1))}${describeTimeLeft(run, job)}`;
  if (job?.state === "failed") return `${name} ended with a problem after ${at}`;
  if (!run.net) return `${name} ${job ? "was stopped before it started" : "is no longer among the runs"}`;
  if (run.score) return `done: ${run.score}; ${name}`;
  return hasEnded(run) ? `done: ${name} has no score` : `paused at ${at}; Continue resumes exactly there`;
}

// Trained epochs, or the one in training. Within a time limit, nobody knows how many there will be.
function describeEpoch(run, job) {
  const trained = run.rows.length;
  const epoch = isActive(job) && hasBegun(run) ? Math.min(trained + 1, run.planned || Infinity) : trained;
  return `epoch ${epoch}${run.planned && !(isActive(job) && job.seconds) ? `/${run.planned}` : ""}`;
}

function hasBegun({ rows, steps }) {
  return rows.length + steps.length > 0;
}

// Whether nothing of a training is left to do, also after Finish now.
export function hasEnded(run) {
  return run.is_finished || run.score !== null;
}

function describeScore(row) {
  const name = row && Object.keys(row).find((key) => key.startsWith("val_") && key !== "val_loss" && row[key] !== null);
  if (!name) return row?.train_accuracy == null ? "" : `, train accuracy ${percent(row.train_accuracy)}`;
  const metric = name.slice("val_".length);
  const value = state.fractions.includes(metric) ? percent(row[name]) : row[name].toPrecision(4);
  return `, val ${metric.replaceAll("_", " ")} ${value}`;
}

function describeTimeLeft(run, job) {
  const limit = job.seconds;
  if (limit) return `, ${duration(limit - (Date.now() / 1000 - job.began))} of ${duration(limit)} left`;
  const [first, last] = [run.steps[0], run.steps.at(-1)]; // for the first epoch
  const pace = run.pace ?? run.rows.at(-1)?.train_seconds ?? (last?.seconds - first?.seconds) / (last?.at - first?.at);
  return pace && run.planned ? `, about ${duration(pace * (run.planned - (run.rows.length || last.at)))} left` : "";
}

// The running training and those that wait.
export function Queue() {
  const active = [...state.jobs.values()].filter((job) => job.run && isActive(job));
  if (!active.length) return null;
  return html`<ul id="queue" aria-label="Trainings">
    ${active.map((job) => html`<${Training} key=${job.number} job=${job} />`)}
  </ul>`;
}

// A training in the queue; the selected one has its buttons below.
function Training({ job }) {
  const isSelected = job.run === state.selected;
  const stop = job.state === "queued" ? "Cancel" : "Pause";
  const { text, part } = findProgress(job);
  return html`<li>
    <button type="button" aria-pressed=${isSelected} onClick=${() => isSelected || selectRun(job.run)}>${job.run}</button>
    <span class="note">${text}</span>
    <${Progress} label=${plain(`Progress of ${job.run}`)} value=${part} />
    <button type="button" class="small" style=${{ visibility: isSelected ? "hidden" : "visible" }}
      disabled=${job.is_stopping} aria-label=${plain(`${stop} ${job.run}`)} onClick=${() => act("stop", job.run)}>
      ${stop}
    </button>
  </li>`;
}

// What a training does, and the part that is done: of its time if that is limited, else of its
// epochs.
function findProgress(job) {
  if (job.state === "queued") return { text: "waiting", part: 0 };
  const event = state.progress.get(job.number);
  const run = state.run?.name === job.run ? state.run : state.runs.find(({ name }) => name === job.run);
  const time = job.seconds && (Date.now() / 1000 - job.began) / job.seconds;
  if (event?.event === "progress")
    return { text: `${event.what} ${count(event.done)} of ${count(event.total)}`, part: time ?? event.done / event.total };
  const epoch = event ? event.epoch : (run?.rows?.length ?? run?.epochs ?? 0);
  const planned = job.seconds ? null : run?.planned;
  const done = event?.event === "step" ? epoch - 1 + event.step / event.steps : epoch;
  const text = job.is_stopping ? "ending …" : epoch ? `epoch ${epoch}${planned ? ` of ${planned}` : ""}` : "preparing";
  return { text, part: time ?? (planned ? done / planned : null) };
}

// Name and result of the selected run, and the buttons that make sense now.
export function RunHead() {
  if (!state.selected) return null;
  const run = findSelected();
  const name = state.selected;
  const job = findJob(name);
  const isTraining = isActive(job);
  const hasStepped = ["step", "epoch"].includes(state.progress.get(job?.number)?.event);
  const canContinue = run?.net && !isTraining && !hasEnded(run);
  const show = (text, action, isDisabled, more) =>
    html`<button type="button" disabled=${isDisabled} class=${text === "Continue" ? "primary" : ""}
      onClick=${() => act(action, name, more)}>${text}</button>`;
  return html`<div id="run">
    <div class="row">
      <h2 id="run-title" tabindex="-1">${name}</h2>
      ${isTraining && show(job.state === "queued" ? "Cancel" : "Pause", "stop", job.is_stopping && !job.is_finishing)}
      ${/* before the first step, it would only pause */ ""}
      ${isTraining && job.state === "running" && show("Finish now", "stop", job.is_stopping || !hasStepped, { is_finishing: true })}
      ${canContinue && show("Continue", "resume", false)}
    </div>
    ${run && html`<${Result} run=${run} isTraining=${isTraining} />`}
    <${Problem} id="run-problem" text=${state.runProblem || (job?.state === "failed" && job.problem)} />
  </div>`;
}

// A tick is earned: only a gain over guessing that is no chance has it.
function Result({ run, isTraining }) {
  if (!run.score) {
    const trained = `${plural(run.rows.length, "epoch")} trained${run.planned ? ` of ${run.planned}` : ""}`;
    return run.net && !isTraining && html`<${Note}>${hasEnded(run) ? `${trained}, without a score` : trained}</${Note}>`;
  }
  const [score, ...interval] = run.score.split(/ (?=\()/u);
  const open = (tab) => (event) => {
    event.preventDefault();
    change({ tab });
    document.getElementById(`tab-${tab}`).focus();
  };
  return html`<p id="score" class=${run.is_better ? "good" : ""}>
      <strong>${run.is_better ? "✓ " : ""}${score}</strong> ${compareToGuessing(run)}
      <span class="note"> ${interval.join(" ")}</span>
    </p>
    ${
      !isTraining &&
      html`<${Note} id="after">Next: <a href="#panel" onClick=${open("look")}>see what it confuses</a>, or
        <a href="#panel" onClick=${open("try")}>try it on your own image</a>.</${Note}>`
    }`;
}

function compareToGuessing({ is_better: isBetter, baseline_text: baseline }) {
  if (isBetter === null || isBetter === undefined) return "";
  const guessing = baseline ? `guessing (${baseline})` : "guessing";
  return isBetter ? `– better than ${guessing}` : `– hardly better than ${guessing}`;
}

export function RunTraining({ run }) {
  const found = run.rows.flatMap((row) => row.diagnoses ?? []).slice(-MOST_DIAGNOSES);
  const last = run.rows.at(-1);
  return html`<div id="course">
    <${Curves} run=${run} />
    <div>
      <div id="diagnoses">${found.map((diagnosis) => html`<${Diagnosis} key=${diagnosis.kind} ...${diagnosis} />`)}</div>
      ${!last && run.remark && html`<${Note} id="remark">${run.remark}</${Note}>`}
      <${Inside} run=${run} />
      ${last && html`<${Note}>${count(last.images_per_second)} images/s</${Note}>`}
    </div>
    <${Further} run=${run} />
  </div>`;
}

function Diagnosis({ epoch, kind, finding, advice, change: values }) {
  return html`<div class="diagnosis">
    <p><strong>Epoch ${epoch}: ${kind.replaceAll("-", " ")}.</strong> ${finding} ${advice}</p>
    ${
      Object.keys(values).length > 0 &&
      html`<button type="button" onClick=${() => applyChange(values)}>Apply to the settings</button>`
    }
  </div>`;
}

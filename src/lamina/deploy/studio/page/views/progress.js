// What is training and what waits, and how the selected run trains: progress, curves.

import { selectRun } from "../actions/runs.js";
import { act, applyChange } from "../actions/training.js";
import { Button, Details, Note, Problem, Progress, count, duration, plural } from "../parts.js";
import { html } from "../preact.js";
import { change, findJob, findSelected, hasEnded, isActive, listTrainings, state } from "../state.js";
import { Curves } from "./curves.js";
import { Further } from "./further.js";
import { Inside } from "./inside.js";
import { CHOSEN } from "./net.js";
import { describeResult, isTraining } from "./status.js";
import { Term } from "./term.js";

const MOST_DIAGNOSES = 3;

// The time left counts down also during long steps, which have no events.
setInterval(() => listTrainings().length > 0 && change({}), 1000);

export function Queue() {
  const trainings = listTrainings();
  if (!trainings.length) return null;
  return html`<ul id="queue" aria-label="Trainings">
    ${trainings.map((job) => html`<${Training} key=${job.number} job=${job} />`)}
  </ul>`;
}

// A training in the queue; the selected one has its buttons below.
function Training({ job }) {
  const { run, is_stopping: isStopping } = job;
  const isSelected = run === state.selected;
  const { text, part } = findProgress(job);
  const stop = nameStop(job);
  const more = { disabled: isStopping, "aria-label": `${stop} ${run}`, onClick: () => act("stop", run) };
  return html`<li>
    <${Button} aria-pressed=${isSelected} onClick=${() => isSelected || selectRun(run)}>${run}</${Button}>
    <span class="note">${text}</span>
    <${Progress} label=${`Progress of ${run}`} value=${part} />
    ${!isSelected && html`<${Button} small ...${more}>${stop}</${Button}>`}
  </li>`;
}

const hasFolder = (run) => state.runs.some(({ name }) => name === run); // else, nothing can be continued

const nameStop = (job) => (job.state === "running" && hasFolder(job.run) ? "Pause" : "Cancel");

// What a training does, and the part that is done: of its time limit, or else of its epochs.
function findProgress(job) {
  if (job.state === "queued") return { text: "waiting", part: 0 };
  const event = state.progress.get(job.number);
  const time = job.seconds && (Date.now() - job.began) / 1000 / job.seconds;
  if (event?.event === "progress") {
    const { what, done, total } = event;
    return { text: `${what} ${count(done)} of ${count(total)}`, part: time ?? done / total };
  }
  if (event?.event === "trying") return { text: `trying ${event.net} at ${event.side_px} px`, part: time };
  const run = state.run?.name === job.run ? state.run : state.runs.find(({ name }) => name === job.run);
  const planned = job.seconds ? null : (event?.epochs ?? run?.planned);
  const epoch = event?.epoch ?? run?.rows?.length ?? run?.epochs ?? 0;
  const trained = event?.event === "step" ? epoch - 1 + event.step / event.steps : epoch;
  let text = epoch ? `epoch ${epoch}${planned ? ` of ${planned}` : ""}` : "preparing";
  if (trained === planned) text = "testing …";
  return { text: job.is_stopping ? "ending …" : text, part: time ?? (planned ? trained / planned : null) };
}

// Name and result of the selected run, and the buttons that make sense now.
export function RunHead() {
  const { selected: name, runProblem } = state;
  if (!name) return null;
  const run = findSelected();
  const job = findJob(name);
  const isPausing = job?.is_stopping && !job.is_finishing;
  // before the first step, it would only pause
  const canFinish = ["step", "epoch"].includes(state.progress.get(job?.number)?.event) && !job?.is_stopping;
  const stop = () => act("stop", name);
  const finish = () => act("stop", name, { is_finishing: true });
  const isDone = run?.net && !isTraining(run);
  const canContinue = isDone && !hasEnded(run);
  return html`<div id="run">
    <div class="row">
      <h2 id="run-title" tabindex="-1">${name}</h2>
      ${isActive(job) && html`<${Button} disabled=${isPausing} onClick=${stop}>${nameStop(job)}</${Button}>`}
      ${job?.state === "running" && html`<${Button} disabled=${!canFinish} onClick=${finish}>Finish now</${Button}>`}
      ${canContinue && html`<${Button} class="primary" onClick=${() => act("resume", name)}>Continue</${Button}>`}
    </div>
    ${isDone && html`<${Result} run=${run} />`}
    <${Problem} id="run-problem" text=${runProblem || (job?.state === "failed" && job.problem)} />
  </div>`;
}

// A tick is earned: only a gain over guessing that is no chance has it.
function Result({ run }) {
  const { score, rows, planned, images, is_better: isBetter, baseline_text: baseline } = run;
  if (!score) {
    const epochs = `${planned ? `${rows.length} of ` : ""}${plural(planned ?? rows.length, "epoch")} trained`;
    return html`<${Note}>${epochs}${hasEnded(run) && ", no score"}</${Note}>`;
  }
  const text = describeResult(run);
  const link = (tab, text) => html`<a href="#panel" onClick=${() => change({ tab })}>${text}</a>`;
  return html`<p id="score" class=${isBetter ? "good" : ""}>
      <strong>${isBetter && "✓ "}${text[0].toUpperCase()}${text.slice(1)}</strong>
    </p>
    <${Details} id="sure" summary="How sure is that?">
      <p>${score}${images && `; guessing gets ${baseline}`}. <${Term} name="95 % interval" /></p>
    </${Details}>
    <p class="note">
      ${adviseTime(run)} Next: ${link("look", "see its predictions")}, or ${link("try", "try it on your own image")}.
    </p>`;
}

// About a net that lamina chose: if it is bad, or if choosing it left little time to train it.
function adviseTime({ name, is_better: isBetter }) {
  const { chooses_net: isChosen, choosing_seconds: choosing, seconds: limit } = findJob(name) ?? {};
  const isShort = choosing > limit / 2;
  if (!isChosen || !limit || (isBetter && !isShort)) return "";
  const used = isShort ? `Choosing the net used ${duration(Math.min(choosing, limit))} of ${duration(limit)}. ` : "";
  return `${used}Set the time limit to ${Math.ceil(limit / 20)}m and train again.`;
}

export function RunTraining({ run }) {
  const { rows, remark } = run;
  const isPast = ({ evidence }) => rows.at(-1).val_loss <= evidence.lowest_val_loss; // it recovered
  const diagnoses = rows.flatMap((row) => row.diagnoses ?? []).filter((diagnosis) => !isPast(diagnosis));
  return html`<div id="course">
    <${Curves} run=${run} />
    <div>
      <div id="diagnoses">${diagnoses.slice(-MOST_DIAGNOSES).map(Diagnosis)}</div>
      ${!rows.length && html`<${Note} id="remark">${findJob(run.name)?.chooses_net ? CHOSEN : remark}</${Note}>`}
      <${Inside} run=${run} />
    </div>
    <${Further} run=${run} />
  </div>`;
}

function Diagnosis({ epoch, kind, finding, advice, change: values }) {
  const hasChange = Object.keys(values).length > 0 && !state.net.isChosen; // which has no such fields
  return html`<div class="diagnosis">
    <p><strong>Epoch ${epoch}: ${kind.replaceAll("-", " ")}.</strong> ${finding} ${advice}</p>
    ${hasChange && html`<${Button} onClick=${() => applyChange(values)}>Apply to the settings</${Button}>`}
  </div>`;
}

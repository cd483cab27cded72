// Training: the recipe, the buttons, and what is measured while a run trains.

import { ask } from "./api.js";
import { Curves, listSeries } from "./curves.js";
import { describeSource } from "./data.js";
import { attempt, count, duration, find, make, paragraph, percent, redraw, tell } from "./elements.js";
import { look } from "./inside.js";
import { settleNet } from "./net.js";
import { readFields, setFields } from "./recipe.js";
import { reload, select } from "./runs.js";
import { announce, chosen, findJob, isActive, listen, state } from "./shared.js";

const SAY_MS = 10_000; // least time between two texts that a screen reader speaks
const MOST_STEPS = 800; // whose losses are drawn
let loss, score;
const said = { at: 0, timer: 0 };
let stepped = 0; // number of the job whose steps were seen last
let frame = 0; // in which the curves will be drawn
let isStarting = false; // a training, which is asked for

export function startTraining() {
  loss = new Curves(find("curves"), "Loss", (value) => (value == null ? "" : value.toPrecision(3)));
  score = new Curves(find("curves"), "Score");
  find("train").addEventListener("click", train);
  find("pause").addEventListener("click", () => act("stop"));
  find("continue").addEventListener("click", () => act("resume"));
  find("finish").addEventListener("click", () => act("stop", { is_finishing: true }));
  listen("recipe", update);
  listen("preview", update);
  listen("event", receive);
  listen("run", showRun);
  listen("select", update);
  listen("compared", draw);
  setInterval(countDown, 1000);
  update();
}

async function train() {
  isStarting = true;
  update();
  await attempt(find("training-problem"), async () => {
    await settleNet();
    if (chosen.net.problem) return;
    const { text, preset, isChosen } = chosen.net;
    const job = await ask("train", {
      ...describeSource(),
      net: isChosen ? "" : preset || text,
      fields: readFields(),
      recipe: preset ? find("recipe-name").value : "",
      time: find("time").value.trim(),
      name: find("run-name").value.trim(),
    });
    find("run-name").value = "";
    await select(job.run);
  });
  isStarting = false;
  update();
}

function act(action, more = {}) {
  return attempt(find("training-problem"), () => ask(action, { run: chosen.run.name, ...more }));
}

function update() {
  // not while another one is being read
  const run = chosen.run?.name === chosen.name ? chosen.run : null;
  const job = run && findJob(run.name);
  const isTraining = isActive(job);
  const reason = chosen.net.problem
    ? "Correct the error in the net to train."
    : chosen.preview
      ? null
      : "Load a data set to train.";
  tell(find("train-note"), reason);
  find("train").disabled = isStarting || Boolean(reason);
  find("pause").disabled = !isTraining || (job.is_stopping && !job.is_finishing);
  find("pause").textContent = job?.state === "queued" ? "Cancel" : "Pause";
  // before the first step, it would only pause
  find("finish").disabled = !isTraining || job.is_stopping || job.number !== stepped;
  find("continue").disabled = !run || isTraining || run.is_finished || !run.net;
  const isPaused = !find("continue").disabled && !run.score;
  find("train").classList.toggle("primary", !isTraining && !isPaused);
  find("continue").classList.toggle("primary", isPaused);
  find("progress").hidden = job?.state !== "running";
  find("after").hidden = !run?.score || isTraining;
}

// Shows a text. A screen reader says what is new at once; of the texts that only count on, the last
// every few seconds.
export function sayStatus(text, isNew = false) {
  if (find("status").textContent !== text) find("status").textContent = text;
  clearTimeout(said.timer);
  said.timer = setTimeout(
    () => {
      said.at = performance.now();
      // else it would be spoken again
      if (find("spoken").textContent !== text) find("spoken").textContent = text;
    },
    isNew ? 0 : said.at + SAY_MS - performance.now(),
  );
}

// Shows the selected run; while it trains, events complete it.
function showRun(run) {
  const job = findJob(run.name);
  tell(find("training-problem"), job?.state === "failed" ? job.problem : null);
  find("progress").firstElementChild.removeAttribute("value"); // until the next event
  find("pace").textContent = "";
  draw();
  showDiagnoses();
  sayStatus(describe(run), true);
  look(run);
  update();
}

function describe(run) {
  const job = findJob(run.name);
  if (job?.state === "queued") return `${run.name} waits for the training before it`;
  const done = run.rows.length,
    planned = run.planned ?? estimateEpochs(run, job);
  // then the epoch in training is named
  const hasBegun = isActive(job) && done + run.steps.length > 0;
  const at = `epoch ${hasBegun ? Math.min(done + 1, Number(planned) || Infinity) : done}/${planned}`;
  if (isActive(job) && job.is_finishing) return `${at}, finishing`;
  if (isActive(job) && job.is_stopping) return `${at}, pausing …`;
  if (isActive(job) && !hasBegun)
    return `${at}, ${job.chooses_net ? "choosing the net" : "preparing"}${timeLeft(run, job)}`;
  if (isActive(job))
    return run.planned && done >= run.planned
      ? `${at}, evaluating`
      : `${at}${scoreOf(run.rows.at(-1))}${timeLeft(run, job)}`;
  if (job?.state === "failed") return `${run.name} ended with a problem after ${at}`;
  if (!run.net)
    return job ? `${run.name} was stopped before it started` : `${run.name} is no longer in the folder of the runs`;
  if (run.score) return `done: ${run.score}; ${run.name}`;
  return run.is_finished ? `done: ${run.name} has no score` : `paused at ${at}; Continue resumes exactly there`;
}

// As many epochs as a time limit allows at the pace so far.
function estimateEpochs(run, job) {
  const limit = job?.seconds,
    done = run.rows.length;
  if (!limit || !done || !isActive(job)) return "?";
  return Math.max(done, Math.round((done * limit) / (Date.now() / 1000 - job.began)));
}

function scoreOf(row) {
  const name = row && Object.keys(row).find((one) => one.startsWith("val_") && one !== "val_loss" && row[one] !== null);
  if (!name) return row?.train_accuracy == null ? "" : `, train accuracy ${percent(row.train_accuracy)}`;
  return `, val ${name.slice(4).replaceAll("_", " ")} ${percent(row[name])}`;
}

function timeLeft(run, job) {
  const limit = job?.seconds;
  if (limit) return `, ${duration(limit - (Date.now() / 1000 - job.began))} of ${duration(limit)} left`;
  const [first, last] = [run.steps[0], run.steps.at(-1)]; // for the first epoch
  const pace = run.pace ?? run.rows.at(-1)?.train_seconds ?? (last?.seconds - first?.seconds) / (last?.at - first?.at);
  return pace && run.planned ? `, about ${duration(pace * (run.planned - (run.rows.length || last.at)))} left` : "";
}

// Tells the time left by the clock, because long steps have no events.
function countDown() {
  const run = chosen.run,
    job = run && findJob(run.name);
  if (job?.state !== "running" || !job?.seconds) return;
  sayStatus(describe(run));
  find("progress").firstElementChild.value = findPart(run);
}

function receive(event) {
  const run = chosen.run;
  if (event.event === "job") {
    state.jobs.set(event.number, event);
    if (run && event.run === run.name && !isActive(event)) reload(run.name);
    else if (event.run) announce("runs-changed");
    if (run && event.run === run.name && isActive(event)) sayStatus(describe(run), true);
    update();
  }
  const isStep = ["step", "epoch"].includes(event.event);
  if (isStep) stepped = event.job;
  if (!run || event.run !== run.name) return;
  if (event.event === "remark" && !run.rows.length) find("pace").textContent = event.text;
  if (event.event === "progress")
    showProgress(
      findJob(run.name)?.seconds ? findPart(run) : event.done / event.total,
      `${event.what} ${count(event.done)} of ${count(event.total)}`,
    );
  const last = run.rows.at(-1);
  if (event.event === "diagnosis" && last) {
    // without an epoch yet, it appears when the run is read again
    // else it was read with its epoch
    const others = (last.diagnoses ?? []).filter(({ finding }) => finding !== event.finding);
    last.diagnoses = [...others, event];
    showDiagnoses();
  }
  if (!isStep) return;
  // it has a folder now, which says how many epochs there will be
  if (!run.net && !run.isAsked) reload(run.name);
  run.isAsked = true;
  (event.event === "step" ? receiveStep : receiveEpoch)(event, run);
  frame ||= requestAnimationFrame(draw);
  update();
}

function receiveStep(event, run) {
  const at = event.epoch - 1 + event.step / event.steps;
  run.steps.push({ at, loss: event.loss, seconds: performance.now() / 1000 });
  if (run.steps.length > MOST_STEPS) run.steps = run.steps.filter((_, place) => place % 2);
  showProgress(findPart(run, at), `epoch ${event.epoch}, step ${count(event.step)} of ${count(event.steps)}`);
  if (!run.rows.length) sayStatus(describe(run));
}

function receiveEpoch(event, run) {
  const now = performance.now() / 1000;
  // with evaluation and saving
  if (run.seen) run.pace = ((run.pace ?? now - run.seen) + now - run.seen) / 2;
  run.seen = now;
  run.rows = [...run.rows.filter((row) => row.epoch < event.epoch), event];
  run.planned = event.epochs ?? run.planned;
  showProgress(
    findPart(run, event.epoch),
    `${count(event.images_per_second)} images/s, learning rate ${Number(event.lr.toPrecision(3))}`,
  );
  sayStatus(describe(run), run.rows.length === 1);
  showDiagnoses();
  look(run);
  announce("epoch", run);
}

// The part of a training that is done: of its time if that is limited, else of its epochs.
function findPart(run, epochs) {
  const job = findJob(run.name),
    limit = job?.seconds;
  return limit ? (Date.now() / 1000 - job.began) / limit : epochs / (run.planned ?? epochs + 1);
}

function showProgress(part, text) {
  find("progress").firstElementChild.value = part;
  find("pace").textContent = text;
}

// The curves of the selected run, and of those that it came from or is compared with, in the order
// of the list.
function draw() {
  frame = 0;
  const run = chosen.run,
    places = state.runs.map(({ name }) => name);
  const shown = [run, ...run.others].sort((a, b) => places.indexOf(a.name) - places.indexOf(b.name));
  const series = listSeries(shown);
  const label = shown.length > 1 ? `${run.name}: train, single steps` : "train, single steps";
  if (run.steps.length)
    series.loss.unshift({
      label,
      color: shown.length > 1 ? series.colors.get(run.name) : 0,
      isThin: true,
      points: run.steps.map((step) => [step.at, step.loss]),
    });
  score.format = series.format;
  loss.show(series.loss.reverse());
  score.show(series.score.reverse());
}

function showDiagnoses() {
  const found = chosen.run.rows.flatMap((row) => row.diagnoses ?? []);
  redraw(
    find("diagnoses"),
    ...found.slice(-3).map((one) => {
      const apply = () => {
        setFields(one.change);
        find("train").focus();
      };
      return make(
        "div",
        { className: "diagnosis" },
        paragraph(
          make("strong", {}, `Epoch ${one.epoch}: ${one.kind.replaceAll("-", " ")}. `),
          `${one.finding} ${one.advice}`,
        ),
        Object.keys(one.change).length
          ? make("button", { type: "button", data: { key: one.kind }, on: { click: apply } }, "Apply to the recipe")
          : null,
      );
    }),
  );
}

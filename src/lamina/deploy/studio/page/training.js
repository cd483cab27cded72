// Training: the recipe, the buttons, and what is measured while a run trains.

import { ask } from "./api.js";
import { Curves, listSeries } from "./curves.js";
import { describeSource } from "./data.js";
import { count, duration, find, make, percent, redraw, tell } from "./elements.js";
import { look } from "./inside.js";
import { readFields, setFields } from "./recipe.js";
import { select } from "./runs.js";
import { announce, chosen, findJob, isActive, listen, state } from "./shared.js";

// What a diagnosis suggests, as changes of fields that one click applies.
const REMEDIES = {
  "learning-rate-too-high": (recipe) => ({ lr: String(recipe.lr / 3) }),
  "learning-rate-too-low": (recipe) => ({ lr: String(recipe.lr * 3) }),
  "exploding-gradients": () => ({ gradient_clip: "1" }),
  "dying-relu": (recipe) => ({ lr: String(recipe.lr / 3) }),
  oscillation: (recipe) => ({ lr: String(recipe.lr / 3) }),
  overfitting: (recipe) => ({ weight_decay: String(Math.max(0.01, 2 * recipe.weight_decay)), label_smoothing: "0.1" }),
};
const SAY_MS = 3000; // least time between two texts of the status, which a screen reader speaks
let loss, score;
let said = { at: 0, timer: 0 };
let isDrawing = false; // at the next frame
let steps = []; // losses of single steps of the training that is shown

export function startTraining() {
  loss = new Curves(find("curves"), "Loss", (value) => (value == null ? "" : value.toPrecision(3)));
  score = new Curves(find("curves"), "Score");
  find("train").addEventListener("click", train);
  find("pause").addEventListener("click", () => act("stop"));
  find("stop").addEventListener("click", () => act("stop"));
  find("continue").addEventListener("click", () => act("resume"));
  find("finish").addEventListener("click", () => act("stop", { is_finishing: true }));
  listen("recipe", update);
  listen("preview", update);
  listen("event", receive);
  listen("run", showRun);
  update();
}

async function train() {
  tell(find("training-problem"), null);
  const { text, preset, isChosen } = chosen.net;
  const recipe = find("recipe-name").value;
  const given = { ...describeSource(), net: isChosen ? "" : preset || text, recipe: preset ? recipe : "", fields: readFields(),
    time: find("time").value.trim(), name: find("run-name").value.trim() };
  try {
    const job = await ask("train", given);
    find("run-name").value = "";
    await select(job.run, true);
  } catch (error) {
    tell(find("training-problem"), error.message);
  }
}

async function act(action, more = {}) {
  tell(find("training-problem"), null);
  try {
    await ask(action, { run: chosen.run.name, ...more });
  } catch (error) {
    tell(find("training-problem"), error.message);
  }
}

function update() {
  const run = chosen.run;
  const job = run && findJob(run.name);
  const isTraining = isActive(job);
  find("train").disabled = Boolean(chosen.net.problem) || !chosen.preview;
  find("pause").disabled = !isTraining || job.state !== "running";
  find("stop").disabled = !isTraining;
  find("finish").disabled = !isTraining || job.is_finishing || job.state !== "running" || !steps.length;
  find("continue").disabled = !run || isTraining || run.is_finished || !run.net;
  find("train").classList.toggle("primary", !isTraining && find("continue").disabled);
  find("continue").classList.toggle("primary", !find("continue").disabled);
  if (!isTraining) find("progress").hidden = true;
}

// Says at once what is new; of the texts that only count on, the last one every few seconds.
function sayStatus(text, isNew = false) {
  clearTimeout(said.timer);
  const wait = isNew ? 0 : said.at + SAY_MS - performance.now();
  if (wait > 0) {
    said.timer = setTimeout(() => sayStatus(text), wait);
    return;
  }
  said.at = performance.now();
  if (find("status").textContent !== text) find("status").textContent = text;
}

// Shows the selected run; while it trains, events complete it.
function showRun(run) {
  steps = run?.steps ?? [];
  const job = run && findJob(run.name);
  tell(find("training-problem"), job?.state === "failed" ? job.problem : null);
  draw();
  showDiagnoses();
  if (run) {
    sayStatus(describe(run), true);
    if (run.rows.length) look(run);
    else find("live").replaceChildren();
  }
  update();
}

function describe(run) {
  const job = findJob(run.name);
  if (job?.state === "queued") return `${run.name} waits for the training before it`;
  const done = run.rows.length;
  const at = `epoch ${done}/${run.planned ?? "?"}`;
  if (isActive(job) && job.is_finishing) return `${at}, finishing`;
  if (isActive(job)) return done && done >= run.planned ? `${at}, evaluating` : `${at}${scoreOf(run.rows.at(-1))}${timeLeft(run, job)}`;
  if (job?.state === "failed") return `${run.name} ended with a problem after ${at}`;
  if (!run.net) return job ? `${run.name} was stopped before it started` : `${run.name} is no longer in the folder of the runs`;
  if (run.score) return `done: ${run.score}; ${run.name}`;
  return run.is_finished ? `done: ${run.name} has no score` : `paused at ${at}; Continue goes on exactly there`;
}

function scoreOf(row) {
  const name = row && Object.keys(row).find((one) => one.startsWith("val_") && one !== "val_loss" && row[one] !== null);
  if (!name) return row?.train_accuracy == null ? "" : `, train accuracy ${percent(row.train_accuracy)}`;
  return `, val ${name.slice(4).replaceAll("_", " ")} ${percent(row[name])}`;
}

function timeLeft(run, job) {
  const limit = readLimit(job);
  if (limit) return `, ${duration(limit - (Date.now() / 1000 - job.began))} of ${duration(limit)} left`;
  const recent = run.rows.slice(-3);
  if (!recent.length || !run.planned) return "";
  const seconds = recent.reduce((sum, row) => sum + row.train_seconds, 0) / recent.length;
  return `, about ${duration(seconds * (run.planned - run.rows.length))} left`;
}

// The time limit of a training in seconds, from its command.
function readLimit(job) {
  const [, value, unit] = job?.command.match(/ --time=([\d.]+)([smh])/) ?? [];
  return value ? Number(value) * { s: 1, m: 60, h: 3600 }[unit] : null;
}

function receive(event) {
  const run = chosen.run;
  if (event.event === "job") {
    state.jobs.set(event.number, event);
    if (run && event.run === run.name) {
      if (isActive(event)) {
        find("progress").hidden = false;
        sayStatus(describe(run), true);
      } else if (event.state !== "queued") select(run.name, true);
    } else if (event.run && !isActive(event)) announce("runs-changed");
    update();
  }
  if (!run || event.run !== run.name) return;
  if (event.event === "remark" && !run.rows?.length && isActive(findJob(run.name))) find("pace").textContent = event.text;
  if (event.event === "progress") showProgress(event.done / event.total, `${event.what} ${count(event.done)} of ${count(event.total)}`);
  if (event.event === "step") receiveStep(event, run);
  if (event.event === "epoch") receiveEpoch(event, run);
}

function receiveStep(event, run) {
  steps.push([event.epoch - 1 + event.step / event.steps, event.loss]);
  run.steps = steps;
  showProgress(findPart(run, event.epoch - 1 + event.step / event.steps), `epoch ${event.epoch}, step ${count(event.step)} of ${count(event.steps)}`);
  if (!run.planned && !run.isAsked) { // the run has a folder now, which says how many epochs there will be
    run.isAsked = true;
    select(run.name, true);
  } else if (!run.rows.length) sayStatus(describe(run));
  draw();
  update();
}

function receiveEpoch(event, run) {
  run.rows = [...run.rows.filter((row) => row.epoch < event.epoch), event];
  run.planned = event.epochs ?? run.planned;
  showProgress(findPart(run, event.epoch),
    `${count(event.images_per_second)} images/s, learning rate ${Number(event.lr.toPrecision(3))}`);
  sayStatus(describe(run));
  draw();
  showDiagnoses();
  update();
  look(run);
  if (!state.runs.some(({ name }) => name === run.name)) announce("runs-changed");
  announce("epoch", run);
}

// The part of a training that is done: of its time if that is limited, else of its epochs.
function findPart(run, epochs) {
  const job = findJob(run.name), limit = readLimit(job);
  return limit ? (Date.now() / 1000 - job.began) / limit : epochs / (run.planned ?? epochs + 1);
}

function showProgress(part, text) {
  find("progress").hidden = false;
  find("progress").firstElementChild.value = Math.min(1, part);
  find("pace").textContent = text;
}

function draw() {
  if (!isDrawing) requestAnimationFrame(drawNow);
  isDrawing = true;
}

// The curves of the selected run, over those of the run that it came from.
function drawNow() {
  isDrawing = false;
  const shown = chosen.run ? [chosen.run, ...(chosen.run.others ?? [])] : [];
  const series = listSeries(shown);
  const label = shown.length > 1 ? `${chosen.run.name}: train, single steps` : "train, single steps";
  if (steps.length) series.loss.unshift({ label, color: 0, isThin: true, points: thin(steps) });
  score.format = series.format;
  loss.show(series.loss.reverse());
  score.show(series.score.reverse());
}

function thin(points) {
  const step = Math.ceil(points.length / 400);
  return points.filter((_, place) => place % step === 0);
}

function showDiagnoses() {
  const found = (chosen.run?.rows ?? []).flatMap((row) => row.diagnoses ?? []);
  redraw(find("diagnoses"), ...found.slice(-3).map((one) => {
    const remedy = REMEDIES[one.kind];
    const apply = () => {
      setFields(remedy(Object.fromEntries(["lr", "weight_decay"].map((name) => [name, Number(chosen.run.recipe[name])]))));
      find("train").focus();
    };
    return make("div", { className: "diagnosis" },
      make("p", {}, make("strong", {}, `Epoch ${one.epoch}: ${one.kind.replaceAll("-", " ")}. `), `${one.finding} ${one.advice}`),
      remedy && chosen.run.recipe ? make("button", { type: "button", data: { key: one.kind }, on: { click: apply } }, "Put this into the recipe") : null);
  }));
}


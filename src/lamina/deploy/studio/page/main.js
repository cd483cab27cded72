// The page: starts with the state of the studio, passes on its events, and keeps what outlives a
// reload.

import { ask, follow } from "./api.js";
import { App } from "./app.js";
import { receiveClasses } from "./classes.js";
import { receiveData, useSource } from "./data.js";
import { receiveLabels } from "./labels.js";
import { receiveLessons } from "./lessons.js";
import { startNet } from "./net.js";
import { html, render } from "./preact.js";
import { load, save } from "./request.js";
import { recoverRuns, selectRun } from "./runs.js";
import { change, changePart, mount, state } from "./store.js";
import { receiveTake } from "./take.js";
import { receiveTraining } from "./training.js";

const RECEIVERS = [receiveData, receiveClasses, receiveLabels, receiveTraining, receiveTake, receiveLessons];
const RETRY_MS = 2000;
// what outlives a reload, in the storage of this tab
const KEPT = ["step", "tab", "source", "sizePx", "val", "values", "recipeName", "time", "runName", "selected"];

export async function start() {
  let first;
  try {
    first = await ask("state");
  } catch (error) {
    const needsToken = error.status === 401;
    changePart("connection", { needsToken, message: needsToken ? "This studio asks for a token." : error.message });
    if (!needsToken) setTimeout(start, RETRY_MS);
    return;
  }
  changePart("connection", { needsToken: false, message: "" });
  learn(first);
  const kept = load("page") ?? {};
  const fields = Object.fromEntries(KEPT.filter((name) => name in kept).map((name) => [name, kept[name]]));
  change({ ...fields, compared: new Set(kept.compared) });
  const isKnown = state.sources.some(({ source }) => source === state.source);
  startNet(kept.net);
  useSource(isKnown ? state.source : state.sources[0].source);
  const run = findFirst();
  if (run) selectRun(run);
  addEventListener("pagehide", keep);
  follow(first.after, receive, tellConnected);
}

function learn({ data: sources, jobs, presets, layers, fields, fractions, runs }) {
  change({ sources, presets, layers, fields, fractions, runs, jobs: new Map(jobs.map((job) => [job.number, job])) });
}

// The run that was selected, one in training, or the newest.
function findFirst() {
  const trained = [...state.jobs.values()].filter((job) => job.run);
  const names = [...state.runs.map(({ name }) => name), ...trained.map((job) => job.run)];
  if (names.includes(state.selected)) return state.selected;
  return (trained.find((job) => job.state === "running") ?? trained.at(-1))?.run;
}

function keep() {
  const { net, compared } = state;
  const fields = Object.fromEntries(KEPT.map((name) => [name, state[name]]));
  save("page", { ...fields, net, compared: [...compared] });
}

function receive(event) {
  if (event.event === "lost") return recover();
  if (event.event === "job") change({ jobs: new Map(state.jobs).set(event.number, event) });
  for (const react of RECEIVERS) react(event);
}

// Reads the state of a studio that was started again, or after a long time without it.
async function recover() {
  try {
    learn(await ask("state"));
  } catch {
    setTimeout(recover, RETRY_MS);
    return;
  }
  receive({ event: "recovered" });
  recoverRuns();
}

function tellConnected(isConnected, status) {
  changePart("connection", { isLost: !isConnected, needsToken: status === 401 });
}

mount(() => render(html`<${App} />`, document.body));
start();

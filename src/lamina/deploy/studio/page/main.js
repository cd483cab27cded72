// The page: starts with the state of the studio, passes on its events, and keeps what outlives a reload.

import { ask, follow } from "./api.js";
import { App, NEEDS_TOKEN } from "./app.js";
import { receiveClasses } from "./classes.js";
import { findSource, receiveData, useSource } from "./data.js";
import { receiveLabels } from "./labels.js";
import { receiveLessons } from "./lessons.js";
import { startNet } from "./net.js";
import { html, render } from "./preact.js";
import { load, save } from "./request.js";
import { reloadRun, selectRun } from "./runs.js";
import { change, mount, state } from "./store.js";
import { receiveTake } from "./take.js";
import { receiveTraining } from "./training.js";

const RECEIVERS = [receiveData, receiveClasses, receiveLabels, receiveTraining, receiveTake, receiveLessons];
const RETRY_MS = 2000;
// fields of the state that outlive a reload, in the storage of this tab
const STORED = ["step", "tab", "source", "sizePx", "val", "values", "recipeName", "time", "runName", "selected"];

export async function start() {
  let mark;
  try {
    mark = await readState();
  } catch (error) {
    const needsToken = error.status === 401;
    change({ connection: { needsToken, message: needsToken ? NEEDS_TOKEN : error.message } });
    if (!needsToken) setTimeout(start, RETRY_MS);
    return;
  }
  const { net, compared, ...stored } = load("page") ?? {};
  change({ ...stored, compared: new Set(compared), connection: { message: "" } });
  startNet(net);
  useSource((findSource() ?? state.sources[0]).source);
  const run = findFirst();
  if (run) selectRun(run);
  addEventListener("pagehide", store);
  follow(mark, receive, tellConnected);
}

// Returns the mark of the last event before this state.
async function readState() {
  const { data: sources, jobs, after, ...rest } = await ask("state");
  change({ ...rest, sources, jobs: new Map(jobs.map((job) => [job.number, job])) });
  return after;
}

// The run that was selected, one in training, or the newest.
function findFirst() {
  const trained = [...state.jobs.values()].filter((job) => job.run);
  const names = [...state.runs.map(({ name }) => name), ...trained.map((job) => job.run)];
  if (names.includes(state.selected)) return state.selected;
  return (trained.find((job) => job.state === "running") ?? trained.at(-1))?.run ?? names[0];
}

function store() {
  const { net, compared } = state;
  const fields = Object.fromEntries(STORED.map((name) => [name, state[name]]));
  save("page", { ...fields, net, compared: [...compared] });
}

function receive(event) {
  if (event.event === "lost") return recover();
  if (event.event === "job") change({ jobs: new Map(state.jobs).set(event.number, event) });
  for (const react of RECEIVERS) react(event);
}

// After a restart of the studio, or a long time without it.
async function recover() {
  try {
    await readState();
  } catch {
    setTimeout(recover, RETRY_MS);
    return;
  }
  receive({ event: "recovered" });
  if (state.selected) reloadRun(state.selected);
}

function tellConnected(isConnected, status) {
  const message = isConnected ? "" : state.connection.message;
  change({ connection: { isLost: !isConnected, needsToken: status === 401, message } });
}

mount(() => render(html`<${App} />`, document.body));
start();

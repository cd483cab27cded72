// The page: starts with the state of the studio, passes on its events, and keeps what outlives a reload.

import { receiveClasses } from "./actions/classes.js";
import { receiveData, useSource } from "./actions/data.js";
import { receiveLabels } from "./actions/labels.js";
import { receiveLessons } from "./actions/lessons.js";
import { startNet } from "./actions/net.js";
import { recoverRuns, selectRun } from "./actions/runs.js";
import { receiveTake } from "./actions/take.js";
import { receiveTraining } from "./actions/training.js";
import { ask, openEvents } from "./api.js";
import { html, render } from "./preact.js";
import { load, request, save } from "./request.js";
import { change, findSource, mount, state } from "./state.js";
import { App, NEEDS_TOKEN } from "./views/app.js";
import { readGlossary } from "./views/term.js";

const RECEIVERS = [receiveData, receiveClasses, receiveLabels, receiveTraining, receiveTake, receiveLessons];
const RETRY_MS = 1000;

// fields of the state that outlive a reload, in the storage of this tab
const STORED = ["step", "tab", "source", "sizePx", "val", "values", "recipeName", "time", "runName", "selected"];

// Follows the events of the studio for as long as the page is open. They begin before its state is
// read, so that none is missed.
async function follow() {
  for (;;) {
    const attempt = new AbortController();
    try {
      const events = await openEvents(attempt.signal);
      await readState();
      change({ connection: { message: "" } });
      if (state.source) recover();
      else start();
      for await (const event of events) receive(event);
    } catch (error) {
      tellLost(error);
    }
    attempt.abort(); // else its stream stays open, and a browser opens only a few
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function tellLost({ status, message }) {
  const { isTried } = state.connection;
  const needsToken = status === 401;
  const isLost = state.source !== "" && (needsToken || !status); // else the studio says what is wrong
  const tokenMessage = isTried ? "This token is wrong." : NEEDS_TOKEN;
  change({ connection: { isLost, needsToken, isTried, message: needsToken ? tokenMessage : isLost ? "" : message } });
}

async function readState() {
  const { data: sources, jobs, ...rest } = await ask("state");
  change({ ...rest, sources, jobs: new Map(jobs.map((job) => [job.number, noteBegin(job)])) });
}

// What the page shows first: as before a reload of this tab.
function start() {
  const { net, compared, ...stored } = load("page") ?? {};
  change({ ...stored, compared: new Set(compared) });
  startNet(net);
  useSource((findSource() ?? state.sources[0]).source);
  const run = findFirst();
  if (run) selectRun(run);
  addEventListener("pagehide", store);
}

// After a lost connection, or a restart of the studio.
function recover() {
  receive({ event: "recovered" });
  recoverRuns();
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
  if (event.event === "job") change({ jobs: new Map(state.jobs).set(event.number, noteBegin(event)) });
  for (const react of RECEIVERS) react(event);
}

// The job with the time when it began on the clock of this page, in milliseconds.
function noteBegin(job) {
  return { ...job, began: Date.now() - 1000 * job.ran_seconds };
}

async function loadGlossary() {
  const response = await request("glossary.md");
  change({ glossary: readGlossary(await response.text()) });
}

mount(() => render(html`<${App} />`, document.body));
loadGlossary().catch(() => null); // the page works without it
follow();

// The layout: first three steps, and nothing else; with a run, the steps are one column of
// sections, one of which is open, beside the results.

import { openLessons } from "../actions/lessons.js";
import { Button, Note, Problem } from "../parts.js";
import { html } from "../preact.js";
import { setToken } from "../request.js";
import { NARROW, change, changePart, findJob, findSelected, isActive, listTrainings, state } from "../state.js";
import { NextStep, RECORDED } from "./classes.js";
import { Compare } from "./compare.js";
import { DataStep, summarizeData } from "./data.js";
import { Lessons } from "./lessons.js";
import { Look } from "./look.js";
import { NetStep, summarizeNet } from "./net.js";
import { Queue, RunHead, RunTraining } from "./progress.js";
import { RunsPanel, summarizeRuns } from "./runs.js";
import { Status } from "./status.js";
import { Take } from "./take.js";
import { TrainingStep, summarizeTraining } from "./training.js";
import { Try } from "./try.js";

const LOST = "The studio cannot be reached; trying again. Is it still running?";
export const NEEDS_TOKEN = "This studio asks for a token.";
const TABS = [
  ["training", "Training", RunTraining],
  ["look", "Results", Look],
  ["compare", "Compare", Compare],
  ["try", "Try it", Try],
  ["take", "Export", Take],
];

NARROW.addEventListener("change", () => change({}));

function hasRuns() {
  return state.runs.length > 0 || state.selected !== null || listTrainings().length > 0;
}

export function App() {
  const { isLost, needsToken } = state.connection;
  const { isOpen } = state.lessons;
  const isLoaded = state.fields.length > 0;
  return html`
    <a class="skip" href="#training">Skip to the training</a>
    <header>
      <h1>lamina <span>studio</span></h1>
      <${Status} />
      ${isLost && html`<${Problem} id="lost" text=${needsToken ? NEEDS_TOKEN : LOST} />`}
      <${Button} id="lessons-button" disabled=${!isLoaded} aria-expanded=${isOpen} aria-controls="lessons"
        onClick=${() => openLessons(!isOpen)}>${hasRuns() ? "Lessons" : "New here? Open the lessons"}</${Button}>
    </header>
    <div id="workbench" class=${hasRuns() ? "with-runs" : "first"}>
      ${isLoaded && isOpen && html`<${Lessons} />`}
      <main>
        ${needsToken && html`<${Access} />`}
        ${isLoaded && html`<${Steps} />`}
        ${isLoaded && hasRuns() && html`<${Results} />`}
      </main>
    </div>
  `;
}

function Steps() {
  const runs = summarizeRuns();
  return html`<div id="steps">
    <${Step} name="data" number="1" title="Images" summary=${summarizeData()}><${DataStep} /></${Step}>
    <${Step} name="net" number="2" title="Net" summary=${summarizeNet()}><${NetStep} /></${Step}>
    <${Step} name="training" number="3" title="Train" summary=${summarizeTraining()}>
      <${NextStep} /><${TrainingStep} />
    </${Step}>
    ${hasRuns() && html`<${Step} name="runs" number="4" title="Runs" summary=${runs}><${RunsPanel} /></${Step}>`}
  </div>`;
}

// A section of which one is open at a time; before the first run, a wide page shows all. What a
// closed one contains is drawn, too, because it keeps what was typed.
function Step({ name, number, title, summary, children }) {
  const isOpen = state.step === name;
  const areAllOpen = !hasRuns() && !NARROW.matches;
  const heading = html`<span class="number">${number}</span> ${title} <span class="note">${summary}</span>`;
  const toggle = () => change({ step: isOpen ? "" : name });
  const opener = html`<${Button} aria-expanded=${isOpen} onClick=${toggle}>${heading}</${Button}>`;
  return html`<section id=${name} class=${isOpen ? "step open" : "step"} aria-labelledby=${`${name}-title`}>
    <h2 id=${`${name}-title`} tabindex="-1">${areAllOpen ? heading : opener}</h2>
    <div class="body">${children}</div>
  </section>`;
}

function Results() {
  const run = findSelected();
  const note = state.selected ? `Reading ${state.selected} …` : "Select a run, or train one.";
  const [, , Panel] = TABS.find(([name]) => name === state.tab);
  const isEmpty = run && !run.net && !run.isEnding && !isActive(findJob(run.name)); // it was cancelled, or failed
  if (isEmpty) return html`<section id="results" aria-label="Results"><${Queue} /><${RunHead} /></section>`;
  return html`<section id="results" aria-label="Results">
    <${Queue} />
    <${RunHead} />
    <${Tabs} />
    <div id="panel" role="tabpanel" aria-labelledby=${`tab-${state.tab}`} tabindex="0">
      ${run && html`<${Panel} key=${`${state.tab} ${run.name}`} run=${run} />`}
      ${run?.score && run.source === state.sets.recorded && html`<${Note}>${RECORDED}</${Note}>`}
      ${!run && html`<${Note}>${note}</${Note}>`}
    </div>
  </section>`;
}

function Tabs() {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tabs = [...event.currentTarget.children];
    // Enter opens it, because some take long
    if (step) tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length].focus();
  };
  const show = ([name, title]) =>
    html`<${Button} role="tab" id=${`tab-${name}`} aria-controls="panel" aria-selected=${name === state.tab}
      tabindex=${name === state.tab ? 0 : -1} onClick=${() => change({ tab: name })}>${title}</${Button}>`;
  return html`<div role="tablist" aria-label="The selected run" onKeyDown=${move}>${TABS.map(show)}</div>`;
}

function Access() {
  const connect = (event) => {
    event.preventDefault();
    setToken(event.target.elements.token.value); // the next attempt sends it
    changePart("connection", { message: "Connecting …", isTried: true });
  };
  return html`<form id="access" onSubmit=${connect}>
    <label for="token">Token of this studio</label>
    <input id="token" type="password" autocomplete="off" required />
    <button>Connect</button>
  </form>`;
}

// The lessons: in each, the visitor predicts a result, trains, and compares.

import {
  countRuns,
  findName,
  forget,
  keep,
  keepAnswer,
  listFields,
  openLessons,
  reset,
  setUp,
} from "../actions/lessons.js";
import { Button, Problem, percent } from "../parts.js";
import { html, useEffect, useLayoutEffect, useRef } from "../preact.js";
import { change, state } from "../state.js";
import { STATIONS } from "../stations.js";

const PRETRAINED =
  "lamina chose a net that had already learned from over a million photos, and trained it further on your images. " +
  "Without that, so few images would rarely be enough. ";

export function Lessons() {
  const { at, answers, problem, told, filled } = state.lessons;
  const { title, text, change: task, setup, question, choices, see, chapter } = STATIONS[at];
  const answer = answers[at];
  const panel = useRef();
  const before = useRef();
  const isOther = filled && (state.net.preset || (state.net.isChosen && !filled.time));
  useEffect(countRuns, []);
  useEffect(() => void (isOther && forget(filled)));
  // A lesson is read from its beginning; a result is scrolled into view where the panel scrolls.
  useLayoutEffect(() => {
    const isNew = before.current !== at;
    before.current = at;
    panel.current.scrollTop = isNew ? 0 : panel.current.querySelector("fieldset").offsetTop;
    if (!isNew) return;
    panel.current.querySelector("h2").focus({ preventScroll: true });
    window.scrollTo({ top: 0 });
  }, [at, answer?.created, answer?.second]);
  const go = (to) => (to < STATIONS.length ? keep({ at: to, told: "" }) : openLessons(false));
  const names = [answer, answer?.second].map((result) => result && findName(result));
  const fill = (sight) => (names.every(Boolean) ? sight.replace("both runs", () => names.join(" and ")) : sight);
  const predict = (choice) => keepAnswer(at, { known: state.runs.map(({ created }) => created), ...answer, choice });
  const show = ([name], place) => html`<label>
    <input type="radio" name="choice" checked=${answer?.choice === place} disabled=${answer?.created !== undefined}
      onChange=${() => predict(place)} /> ${name}
  </label>`;
  return html`<aside id="lessons" aria-label="Lessons" ref=${panel}>
    <ol id="stations" aria-label="All lessons">
      ${STATIONS.map((_, place) => html`<${Station} place=${place} go=${go} />`)}
    </ol>
    <h2 id="station-title" tabindex="-1">${title}</h2>
    ${text}
    <h3>What to change</h3>
    <p>${task} ${setup.net && `Under Train, set ${listFields(setup.fields).join(", ")}.`}</p>
    <${Button} onClick=${() => setUp(setup)}>Set this up</${Button}>
    <p id="told" class="note" role="status">${told}</p>
    <${Problem} id="lessons-problem" text=${problem} />
    <h3>Predict, then train</h3>
    <fieldset><legend>${question}</legend>${choices.map(show)}</fieldset>
    <div id="answer" aria-live="polite"><${Answer} ...${answer} station=${STATIONS[at]} /></div>
    <h3 hidden=${!state.selected}>What to see</h3>
    <ul hidden=${!state.selected}>
      ${see.map(([name, place, sight]) => html`<li><${Link} ...${place} name=${name} />: ${fill(sight)}</li>`)}
    </ul>
    <p id="chapter">Read more: <${Chapter} file=${chapter[0]} title=${chapter[1]} /></p>
    <div class="row">
      <${Button} disabled=${!at} onClick=${() => go(at - 1)}>Back</${Button}>
      <${Button} class="primary" onClick=${() => go(at + 1)}>${STATIONS[at + 1] ? "Next" : "Close"}</${Button}>
      <${Button} onClick=${() => reset(at)}>Reset this lesson</${Button}>
    </div>
  </aside>`;
}

// The chapter of the documentation; a link if the package knows the documentation's address.
function Chapter({ file, title }) {
  const name = `Chapter ${Number(file.slice(0, 2))}, ${title}`;
  if (!state.documentation) return html`${name}, in the documentation`;
  const address = `${state.documentation}/chapters/${file}.html`;
  return html`<a href=${address} target="_blank" rel="noopener">${name}</a> (opens in a new tab)`;
}

// The number of a lesson, with the result, to compare it with others.
function Station({ place, go }) {
  const value = state.lessons.answers[place]?.value;
  const done = value === undefined ? "" : ` ✓${typeof value === "number" ? ` ${percent(value)}` : ""}`;
  const { title } = STATIONS[place];
  const label = `Lesson ${place + 1} of ${STATIONS.length}, ${title}${done}`;
  const more = { title, "aria-label": label, "aria-current": place === state.lessons.at ? "step" : "false" };
  return html`<li><${Button} small ...${more} onClick=${() => go(place)}>${place + 1}${done}</${Button}></li>`;
}

function Answer({ station: { choices, answer: text, setup, second }, choice, value, second: other, ...more }) {
  if (choice === undefined) return html`<p>Choose one. When your run has ended, its result appears here.</p>`;
  if (value === undefined) {
    const train = html`<${Link} step="training" id="train" name="Train" />`;
    const rest = ". Only a run with the images, net and settings of this lesson counts.";
    if (setup.net) return html`<p>Your prediction is kept. Now press ${train}${rest}</p>`;
    return html`<p>Your prediction is kept. Add images, press “Use these images”, then ${train}.</p>`;
  }
  const [prediction, from, to] = choices[choice];
  const isRight = to === undefined ? value === prediction : from <= value && value < to;
  const result = typeof value === "number" ? `Your net got ${percent(value)}` : `Your net confused ${value} most often`;
  const verdict = isRight ? "as you predicted" : `you predicted ${prediction}`;
  const setUpSecond = () => setUp({ ...setup, net: second.net });
  const tell = (text, from) =>
    html`<p><strong>${text}.</strong> <span class="note">(${findName(from) ?? "deleted"})</span></p>`;
  return html`
    ${tell(`${result}; ${verdict}`, more)}
    <p>${more.images && `${more.images}. `}${more.isPretrained && PRETRAINED}${text}</p>
    ${second && html`<p>${second.task}</p><${Button} onClick=${setUpSecond}>Set up the second net</${Button}>`}
    ${other && [tell(`This net got ${percent(other.value)}`, other), html`<p>${second.answer}</p>`]}
  `;
}

// Opens a step or a tab, and goes there once it is drawn.
function Link({ step, tab, id = tab ? "panel" : `${step}-title`, name }) {
  const open = (event) => {
    event.preventDefault();
    change(tab ? { tab } : { step });
    requestAnimationFrame(() => {
      const place = document.getElementById(id);
      place?.focus({ preventScroll: true });
      place?.scrollIntoView();
    });
  };
  return html`<a href=${`#${id}`} onClick=${open}>${name}</a>`;
}

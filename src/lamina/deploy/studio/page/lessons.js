// The lessons: stations of a tour, in each of which the student's own run answers what the student has predicted.

import { ask } from "./api.js";
import { use } from "./data.js";
import { find, make, percent, tell } from "./elements.js";
import { openMaking } from "./making.js";
import { usePreset, useText } from "./net.js";
import { setFields } from "./recipe.js";
import { chosen, listen, state } from "./shared.js";
import { STATIONS } from "./stations.js";
import { show } from "./tabs.js";

const KEPT = "lessons"; // in the storage of this tab
const tellProblem = (error) => tell(find("lessons-problem"), error?.message);
let kept = { at: 0, isOpen: false, answers: {} };

export function startLessons() {
  kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? kept;
  find("lessons-button").addEventListener("click", () => open(find("lessons").hidden));
  find("set-up").addEventListener("click", () => setUp(STATIONS[kept.at].setup).catch(tellProblem));
  find("back").addEventListener("click", () => go(kept.at - 1));
  find("next").addEventListener("click", () => (kept.at + 1 < STATIONS.length ? go(kept.at + 1) : open(false)));
  listen("event", (event) => event.event === "result" && receive(event).catch(tellProblem));
  if (kept.isOpen) open(true);
}

function save(change) {
  Object.assign(kept, change);
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
}

function saveAnswer(answer, at = kept.at) {
  save({ answers: { ...kept.answers, [at]: answer } });
  showAnswer();
}

function open(isOpen) {
  save({ isOpen });
  find("lessons").hidden = !isOpen;
  find("lessons-button").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) go(kept.at);
  else find("lessons-button").focus();
}

function go(at) {
  save({ at });
  const { title, text, change, question, choices, see } = STATIONS[at];
  find("station-title").textContent = title;
  find("station-text").replaceChildren(...text.map((one) => make("p", {}, one)));
  find("station-change").textContent = change;
  find("question").textContent = question;
  find("choices").replaceChildren(...choices.map(([one], place) => make("label", {}, make("input", { type: "radio", name: "choice",
    on: { change: () => saveAnswer({ choice: place, after: Math.max(0, ...state.jobs.keys()) }) } }), one)));
  find("sights").replaceChildren(...see.map(([name, id, sight]) => make("li", {}, make("a", { href: `#${id}`,
    on: { click: () => id.startsWith("tab-") && show(id.slice(4)) } }, name), `: ${sight}`)));
  find("back").disabled = !at;
  find("next").textContent = at + 1 < STATIONS.length ? "Next" : "Close";
  tellProblem(null);
  showAnswer();
  find("lessons").scrollTop = 0;
  find("station-title").focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
}

// All other fields of the recipe become empty.
async function setUp({ net, preset, fields, time = "" }) {
  tellProblem(null);
  setFields({ ...Object.fromEntries(state.fields.map(({ name }) => [name, ""])), ...fields });
  for (const id of ["size", "run-name"]) find(id).value = "";
  find("time").value = time;
  if (preset) openMaking(true);
  else if (chosen.source !== "shapes" || chosen.preview?.shape[1] !== 32 || find("val").value !== "0.1") await use("shapes");
  return preset ? usePreset(preset) : useText(net);
}

// A result counts if its run began after the prediction, and trained what the station is about.
async function receive({ run: path, job, data, test_accuracy: accuracy }) {
  const run = path.split(/[/\\]/).at(-1);
  const { text, report } = await ask("run", { run });
  const layers = text?.replaceAll("\n", " ").replace(/Output\(.*\)$/u, "Output()");
  const fits = (net) => (net ? data === "shapes" && layers === net : data !== "shapes");
  for (const [at, { setup, second, choices }] of STATIONS.entries()) {
    const answer = kept.answers[at];
    if (!answer || job <= answer.after) continue;
    const isSecond = answer.value !== undefined;
    if (isSecond ? !second || answer.second || !fits(second.net) : !fits(setup.net)) continue;
    saveAnswer({ ...answer, ...(isSecond ? { second: { run, value: accuracy } }
      : { run, value: choices[0].length === 1 ? findConfused(report) : accuracy }) }, at);
    if (at === kept.at) find("lessons").scrollTop = find("question").parentElement.offsetTop;
    return;
  }
}

// The two classes that the report lists with the most confusions of both.
function findConfused(report) {
  const sums = {};
  for (const [, one, other, images] of report.split("true class").at(-1).matchAll(/^(\w+) +(\w+) +(\d+)/gm)) {
    const pair = [one, other].sort().join(" and ");
    sums[pair] = (sums[pair] ?? 0) + Number(images);
  }
  return Object.keys(sums).sort((a, b) => sums[b] - sums[a])[0];
}

// The answer of the station, and the results of all stations, to compare with.
function showAnswer() {
  find("stations").replaceChildren(...STATIONS.map(({ title }, place) => {
    const value = kept.answers[place]?.value;
    const done = value === undefined ? "" : ` ✓${typeof value === "number" ? ` ${percent(value)}` : ""}`;
    const label = `Station ${place + 1} of ${STATIONS.length}, ${title}${done}`;
    return make("li", {}, make("button", { type: "button", className: "small", title, ariaLabel: label,
      ariaCurrent: place === kept.at ? "step" : "false", on: { click: () => go(place) } }, `${place + 1}${done}`));
  }));
  const { choices, answer, setup, second } = STATIONS[kept.at];
  const { choice, value, run, second: other } = kept.answers[kept.at] ?? {};
  for (const [place, input] of find("choices").querySelectorAll("input").entries()) {
    input.checked = place === choice;
    input.disabled = value !== undefined;
  }
  if (value === undefined) {
    const next = choice === undefined ? ["Choose one. When your run has ended, its result appears here."]
      : ["Your prediction is kept. Now press ", make("a", { href: "#train" }, "Train"), " (after a pause: Continue). Other nets or data do not count here."];
    return find("answer").replaceChildren(make("p", {}, ...next));
  }
  const isTrue = ([text, from, to]) => (to === undefined ? text === value : from <= value && value < to);
  const result = typeof value === "number" ? `Your net got ${percent(value)}` : `Your net confused ${value} most often`;
  const verdict = isTrue(choices[choice]) ? "as you predicted" : `you predicted ${choices[choice][0]}`;
  const name = (own) => make("span", { className: "note" }, `(${own})`);
  find("answer").replaceChildren(make("p", {}, make("strong", {}, `${result}; ${verdict}. `), name(run)), make("p", {}, answer));
  if (!second) return;
  const prepare = () => setUp({ ...setup, net: second.net }).catch(tellProblem);
  find("answer").append(make("p", {}, `${second.task} `, make("button", { type: "button", className: "small", on: { click: prepare } }, "Set this up")),
    ...(other ? [make("p", {}, make("strong", {}, `This net got ${percent(other.value)}. `), name(other.run)), make("p", {}, second.answer)] : []));
}

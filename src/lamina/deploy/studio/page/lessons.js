// The lessons: stations of a tour, in each of which the student's own run answers what the student
// has predicted.

import { ask } from "./api.js";
import { use } from "./data.js";
import { attempt, find, make, paragraph, percent, tell } from "./elements.js";
import { openMaking } from "./making.js";
import { usePreset, useText } from "./net.js";
import { setFields } from "./recipe.js";
import { load, save } from "./request.js";
import { chosen, listen, state } from "./shared.js";
import { STATIONS } from "./stations.js";

const KEPT = "lessons"; // in the storage of this tab
const kept = { at: 0, isOpen: false, answers: {}, filled: {} };

export function startLessons() {
  Object.assign(kept, load(KEPT));
  find("lessons-button").addEventListener("click", () => open(find("lessons").hidden));
  find("set-up").addEventListener("click", () =>
    attempt(find("lessons-problem"), () => setUp(STATIONS[kept.at].setup)),
  );
  find("back").addEventListener("click", () => go(kept.at - 1));
  find("next").addEventListener("click", () => (kept.at + 1 < STATIONS.length ? go(kept.at + 1) : open(false)));
  find("preset").addEventListener("change", empty);
  listen("event", countJob);
  // that ended while the page was closed, or without the studio
  const countAll = () => state.jobs.forEach(countJob);
  listen("lost", countAll);
  countAll();
  if (kept.isOpen) open(true);
}

function countJob({ event, run, state: end }) {
  if (event === "job" && run && end === "done" && Object.keys(kept.answers).length)
    attempt(find("lessons-problem"), () => count(run));
}

function keep(change) {
  save(KEPT, Object.assign(kept, change));
}

function saveAnswer(answer, at = kept.at) {
  keep({ answers: { ...kept.answers, [at]: answer } });
  showAnswer();
}

function open(isOpen) {
  keep({ isOpen });
  find("lessons").hidden = !isOpen;
  find("lessons-button").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) go(kept.at);
  else find("lessons-button").focus();
}

function go(at) {
  keep({ at });
  const { title, text, change, setup, question, choices, see } = STATIONS[at];
  const fields = Object.entries(setup.fields).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  find("station-title").textContent = title;
  find("station-text").replaceChildren(...text.map((one) => paragraph(one)));
  find("station-change").textContent = change + (fields.length ? ` Recipe: ${fields.join(", ")}.` : "");
  find("question").textContent = question;
  find("choices").replaceChildren(
    ...choices.map(([one], place) =>
      make(
        "label",
        {},
        make("input", {
          type: "radio",
          name: "choice",
          on: { change: () => saveAnswer({ choice: place, since: Date.now() }) },
        }),
        one,
      ),
    ),
  );
  find("sights").replaceChildren(
    ...see.map(([name, id, sight]) => make("li", {}, make("a", { href: `#${id}` }, name), `: ${sight}`)),
  );
  find("back").disabled = !at;
  find("next").textContent = at + 1 < STATIONS.length ? "Next" : "Close";
  tell(find("lessons-problem"), null);
  showAnswer();
  find("lessons").scrollTop = 0;
  find("station-title").focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
}

// All other fields of the recipe become empty.
async function setUp({ net, preset, fields, time = "" }) {
  setFields({ ...Object.fromEntries(state.fields.map(({ name }) => [name, ""])), ...fields });
  const isLoaded = chosen.source === "shapes" && chosen.preview && !find("size").value && !find("val").value;
  for (const [id, value] of Object.entries({ size: "", val: "", "run-name": "", time })) find(id).value = value;
  keep({ filled: { ...fields, time } });
  if (preset) openMaking(true);
  else if (!isLoaded) await use("shapes");
  return preset ? usePreset(preset) : useText(net);
}

// Another preset gets its own recipe: the fields that a station filled in become empty, unless they
// were changed.
function empty() {
  const { time, ...fields } = kept.filled;
  const isKept = ([name, value]) => find(`field-${name}`)?.value === value;
  setFields(
    Object.fromEntries(
      Object.entries(fields)
        .filter(isKept)
        .map(([name]) => [name, ""]),
    ),
  );
  if (find("time").value === time) find("time").value = "";
  keep({ filled: {} });
}

// A run counts if it began after the prediction, and trained what a station or its second
// experiment is about.
async function count(name) {
  const run = await ask("run", { run: name });
  if (!run.is_fraction) return;
  const layers = await listLayers(run.text);
  const fits = async ({ net, fields }) =>
    (net ? run.data === "shapes" && layers === (await listLayers(net)) : run.data !== "shapes") &&
    Object.entries(fields).every(([field, value]) => Number(run.recipe[field]) === Number(value));
  for (const [at, { setup, second, choices }] of STATIONS.entries()) {
    const answer = kept.answers[at];
    if (!answer || Date.parse(run.created) < answer.since) continue;
    const isSecond = answer.value !== undefined;
    if (isSecond && (answer.second || !second)) continue;
    if (!(await fits(isSecond ? { ...setup, net: second.net } : setup))) continue;
    const value = run.score_value;
    saveAnswer(
      {
        ...answer,
        ...(isSecond
          ? { second: { run: name, value } }
          : { run: name, value: choices[0].length === 1 ? await findConfused(name) : value }),
      },
      at,
    );
    if (at === kept.at) find("lessons").scrollTop = find("question").parentElement.offsetTop;
    return;
  }
}

// The layers as lamina writes them, without the output, which knows the number of classes.
async function listLayers(text) {
  if (!text) return "";
  const { cards } = await ask("net", { text });
  return cards
    .slice(0, -1)
    .map((card) => card.text)
    .join();
}

// The two classes with the most confusions of both.
async function findConfused(name) {
  const [[names, cells]] = (await ask("report", { run: name })).confusions,
    sums = {};
  for (const [truth, predicted, images] of cells.filter((cell) => cell[0] !== cell[1])) {
    const pair = [names[truth], names[predicted]].sort().join(" and ");
    sums[pair] = (sums[pair] ?? 0) + images;
  }
  return Object.keys(sums).sort((a, b) => sums[b] - sums[a])[0];
}

// The answer of the station, and the results of all stations, to compare with.
function showAnswer() {
  find("stations").replaceChildren(
    ...STATIONS.map(({ title }, place) => {
      const value = kept.answers[place]?.value;
      const done = value === undefined ? "" : ` ✓${typeof value === "number" ? ` ${percent(value)}` : ""}`;
      const label = `Station ${place + 1} of ${STATIONS.length}, ${title}${done}`;
      return make(
        "li",
        {},
        make(
          "button",
          {
            type: "button",
            className: "small",
            title,
            ariaLabel: label,
            ariaCurrent: place === kept.at ? "step" : "false",
            on: { click: () => go(place) },
          },
          `${place + 1}${done}`,
        ),
      );
    }),
  );
  const { choices, answer, setup, second } = STATIONS[kept.at];
  const { choice, value, run, second: other } = kept.answers[kept.at] ?? {};
  for (const [place, input] of find("choices").querySelectorAll("input").entries()) {
    input.checked = place === choice;
    input.disabled = value !== undefined;
  }
  if (value === undefined) {
    const next =
      choice === undefined
        ? ["Choose one. When your run has ended, its result appears here."]
        : [
            "Your prediction is kept. Now press ",
            make("a", { href: "#train" }, "Train"),
            " (after a pause: Continue). Other data, nets or settings do not count here.",
          ];
    return find("answer").replaceChildren(paragraph(...next));
  }
  const isTrue = ([text, from, to]) => (to === undefined ? text === value : from <= value && value < to);
  const result = typeof value === "number" ? `Your net got ${percent(value)}` : `Your net confused ${value} most often`;
  const verdict = isTrue(choices[choice]) ? "as you predicted" : `you predicted ${choices[choice][0]}`;
  const name = (own) => make("span", { className: "note" }, `(${own})`);
  find("answer").replaceChildren(
    paragraph(make("strong", {}, `${result}; ${verdict}. `), name(run)),
    paragraph(answer),
  );
  if (!second) return;
  const prepare = () => attempt(find("lessons-problem"), () => setUp({ ...setup, net: second.net }));
  find("answer").append(
    paragraph(
      `${second.task} `,
      make("button", { type: "button", className: "small", on: { click: prepare } }, "Set this up"),
    ),
    ...(other
      ? [
          paragraph(make("strong", {}, `This net got ${percent(other.value)}. `), name(other.run)),
          paragraph(second.answer),
        ]
      : []),
  );
}

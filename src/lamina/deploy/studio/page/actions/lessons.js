// Actions of the lessons: fill in settings, keep predictions, and count runs.

import { ask } from "../api.js";
import { plural } from "../parts.js";
import { load, save } from "../request.js";
import { change, changePart, findSource, state } from "../state.js";
import { STATIONS } from "../stations.js";
import { openClasses } from "./classes.js";
import { useSource } from "./data.js";
import { CHOOSE, usePreset, useText } from "./net.js";

const KEPT = "lessons"; // in the storage of this tab
const START = { preset: "cnn", fields: {} }; // before the first lesson
const FREE = ["seed", "device", "precision"]; // settings that may differ from a lesson's
let counting = Promise.resolve(); // one run after the other

Object.assign(state.lessons, load(KEPT));

export function keep(fields) {
  changePart("lessons", { problem: null, ...fields });
  save(KEPT, state.lessons);
}

export const keepAnswer = (at, answer) => keep({ answers: { ...state.lessons.answers, [at]: answer } });

export function openLessons(isOpen) {
  keep({ isOpen });
  if (!isOpen) document.getElementById("lessons-button").focus();
}

// Fills in what a lesson is about; all other settings become empty.
export function setUp({ net, preset, fields, time = "" }) {
  const isOwn = preset === CHOOSE;
  const isRead = state.source === "shapes" && state.preview && !state.sizePx && !state.val;
  const empty = { sizePx: "", val: "", recipeName: "", runName: "", isMaking: false };
  change({ ...empty, values: fields, time, step: isOwn ? "data" : "training" });
  if (isOwn) openClasses(true);
  else if (!isRead) useSource("shapes");
  if (net) useText(net);
  else usePreset(preset);
  const layers = net?.replace(/\([^)]*\)/gu, "") ?? preset;
  const texts = isOwn ? [`Net chosen by lamina; Time limit ${time}`] : ["Images shapes", `Net ${layers}`];
  const told = `Now set: ${[...texts, ...listFields(fields)].join("; ")}; all other settings as usual.`;
  keep({ told, filled: net || time ? { fields, time } : null });
}

export function listFields(fields) {
  const findLabel = (name) => state.fields.find((field) => field.name === name)?.label ?? name;
  return Object.entries(fields).map(([name, value]) => `${findLabel(name)} ${value}`);
}

// Forgets what was predicted and trained; the settings are those from which the lesson starts.
export function reset(at) {
  keepAnswer(at, undefined);
  setUp(STATIONS[at - 1]?.setup ?? START);
}

// Another preset gets its own recipe: what a lesson filled in becomes empty, unless it was changed.
export function forget({ fields, time }) {
  const values = Object.entries(state.values).filter(([name, value]) => value !== fields[name]);
  change({ values: Object.fromEntries(values), time: state.time === time ? "" : state.time });
  keep({ filled: null, told: "" });
}

export function receiveLessons({ event, run, state: end }) {
  if (event === "recovered" || (event === "job" && run && end === "done")) countRuns();
}

// Also those that ended while the page was closed.
export function countRuns() {
  counting = counting.then(count).catch((error) => changePart("lessons", { problem: error.message }));
}

async function count() {
  const answers = Object.values(state.lessons.answers).filter(Boolean);
  const runs = answers.length ? await ask("runs") : [];
  const isNew = ({ created }) => answers.some(({ known }) => !known.includes(created));
  for (const { name } of runs.filter((run) => run.is_fraction && isNew(run)).reverse())
    await countRun(await ask("run", { run: name }));
}

// A run counts if it began after the prediction, and trained what a lesson or its second experiment
// is about.
async function countRun({ name, score_value: score, created, ...more }) {
  for (const [at, { setup, second, choices }] of STATIONS.entries()) {
    const answer = state.lessons.answers[at];
    const isSecond = answer?.value !== undefined;
    if (!answer || answer.known.includes(created) || (isSecond && (answer.second || !second))) continue;
    if (!(await isAbout(more, isSecond ? { ...setup, net: second.net } : setup))) continue;
    if (isSecond) return keepAnswer(at, { ...answer, second: { created, value: score } });
    const result = choices[0].length > 1 ? { value: score } : await findConfused(name);
    return keepAnswer(at, { ...answer, created, isPretrained: more.text === null, ...result });
  }
}

// Compares values: the texts Dropout(0.5) and Dropout() mean the same.
async function isAbout({ source, size_px: sizePx, val, recipe, text }, { net, fields }) {
  if (!net) return !findSource(source)?.is_built_in;
  const isEqual = (text, value) => text === value || Number(text) === Number(value);
  const isAsSetUp = ({ name, default: usual }) => FREE.includes(name) || isEqual(recipe[name], fields[name] ?? usual);
  if (source !== "shapes" || sizePx !== null || val !== 0.1 || !state.fields.every(isAsSetUp)) return false;
  return (await readLayers(text)) === (await readLayers(net));
}

// Without the output, which knows the number of classes in a run.
async function readLayers(text) {
  const { cards } = await ask("net", { text: text ?? "" });
  return JSON.stringify(cards?.slice(0, -1).map((card) => [card.name, card.arguments]));
}

// The two classes with the most confusions of both, and the numbers.
async function findConfused(run) {
  const [[names, cells]] = (await ask("report", { run })).confusions;
  const sums = {};
  for (const [truth, predicted, images] of cells.filter((cell) => cell[0] !== cell[1])) {
    const pair = [names[truth], names[predicted]].sort().join(" and ");
    sums[pair] = (sums[pair] ?? 0) + images;
  }
  const [[value, most] = ["none", 0], next] = Object.entries(sums).sort((a, b) => b[1] - a[1]);
  const images = `${plural(most, "image")}, counted in both directions`;
  return { value, images: next ? `${images}; ${next.join(" ")}` : images };
}

// The present name of a run that counted, unless it was deleted.
export const findName = ({ created }) => state.runs.find((run) => run.created === created)?.name;

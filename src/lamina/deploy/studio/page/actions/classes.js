// Actions on classes of one's own: save and remove images, name and delete classes.

import { ask, post } from "../api.js";
import { focusLater } from "../parts.js";
import { change, changePart, isActive, state } from "../state.js";
import { useSource } from "./data.js";

const LIMIT_BYTES = 32e6;
const SHOWN_IMAGES = 60; // of a class, as the studio sends
let lastKey = 0; // of the cards
let turn = 0; // of the last request for a set, which counts
let work = Promise.resolve(); // images are saved and classes renamed one after the other

const normalize = (name) => name.trim().normalize("NFC").toLowerCase();

const isSame = (first, second) => normalize(first) === normalize(second);

const findCard = (key) => state.sets.cards.find((card) => card.key === key);

export const changeSets = (fields) => changePart("sets", fields);

export const listFilled = () => state.sets.cards.filter(({ count }) => count);

export function openClasses(isOpen) {
  change({ isMaking: isOpen });
  changeSets({ camera: null });
  if (!isOpen) return;
  focusLater("set-name");
  if (!state.sets.cards.length) openSet(state.sets.name);
}

// Shows the classes and images of a set that was made before, and room for at least two classes.
export async function openSet(name) {
  const mine = ++turn;
  const fresh = { name, cards: [], camera: null, problem: null, note: "", told: "" };
  changeSets({ text: name });
  try {
    await work; // of the set before
    const { source, classes } = await ask("set", { set_name: name });
    if (mine !== turn) return;
    const cards = classes.map((saved) => ({ ...makeCard(saved.name), ...saved, images: saved.images.reverse() }));
    const isNew = !cards.length && listFilled().length > 0;
    const note = isNew ? `${name} is a new set. ${state.sets.name} keeps its images: its name opens it.` : "";
    changeSets({ ...fresh, source, cards, note });
    while (state.sets.cards.length < 2) addCard();
  } catch (error) {
    if (mine === turn) changeSets({ ...fresh, problem: error.message });
  }
}

const makeCard = (name) => ({ key: ++lastKey, name, count: 0, images: [] });

export function addCard() {
  const { cards } = state.sets;
  let number = cards.length + 1;
  while (cards.some(({ name }) => isSame(name, `Class ${number}`))) number += 1;
  changeSets({ cards: [...cards, makeCard(`Class ${number}`)] });
  return lastKey;
}

export function changeCard(key, fields) {
  changeSets({ cards: state.sets.cards.map((card) => (card.key === key ? { ...card, ...fields } : card)) });
}

// Does `act` after what was asked before, for a class that still exists. Its error is shown there.
function doLater(key, act) {
  work = work.then(async () => {
    const card = findCard(key);
    const names = { set_name: state.sets.name, class_name: card?.name };
    if (card) await act(card, names).catch((error) => changeCard(key, { problem: error.message }));
  });
  return work;
}

// Gives a class the name that was typed; if that is wrong, the input shows the one that it has.
export async function renameCard(key, input) {
  const name = input.value.trim();
  await doLater(key, async (card, names) => {
    if (name === card.name) return;
    if (!name) throw new Error(`A class needs a name. This one is still “${card.name}”.`);
    if (state.sets.cards.some((other) => other !== card && isSame(other.name, name)))
      throw new Error(`There is another class “${name}”. This one is still “${card.name}”.`);
    if (card.count) await ask("rename-class", { ...names, new_name: name });
    changeCard(key, { name, problem: null });
  });
  input.value = findCard(key)?.name ?? "";
}

export function deleteCard(key) {
  focusLater("add-class");
  return doLater(key, async (card, names) => {
    if (card.count) await ask("delete-class", names);
    const { cards, camera } = state.sets;
    changeSets({ cards: cards.filter((other) => other.key !== key), camera: camera === key ? null : camera });
  });
}

export function removeImage({ key, images }, file) {
  changeCard(key, { images: images.filter((image) => image.file !== file) });
  return doLater(key, async (card, names) => {
    changeCard(key, { count: await ask("remove-image", { ...names, file }), problem: null });
  });
}

// Saves files one after the other, and returns whether all were; a file that is refused does not stop the others.
export async function saveFiles(key, files) {
  const refused = [];
  const save = (file, place) => async (card, names) => {
    if (files.length > 1) changeCard(key, { note: `Saving ${place + 1} of ${files.length} …` });
    await saveImage(key, file, names).catch((error) => refused.push(`${file.name}: ${error.message}`));
  };
  await Promise.all(files.map((file, place) => doLater(key, save(file, place))));
  const more = refused.length > 1 ? ` ${refused.length - 1} more of ${files.length} files were refused.` : "";
  changeCard(key, { note: "", problem: refused.length ? refused[0] + more : null });
  return !refused.length;
}

async function saveImage(key, file, names) {
  if (file.problem) throw new Error(file.problem);
  if (file.size > LIMIT_BYTES) throw new Error("larger than 32 MB. Use a smaller image.");
  const saved = await post("save-image", await file.arrayBuffer(), names);
  changeCard(key, { count: saved.count, images: [saved, ...findCard(key).images].slice(0, SHOWN_IMAGES) });
}

// The files that were dropped, also those in folders, without hidden ones.
export async function readDropped({ items }) {
  const files = [...items].filter(({ kind }) => kind === "file");
  // an image of another page has no entry
  const entries = files.map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  return (await Promise.all(entries.map(readEntry))).flat(Infinity);
}

function readEntry(entry) {
  const refuse = () => ({ name: entry.name, problem: "cannot be read. Check its permissions." });
  if (entry instanceof File) return entry;
  if (entry.isFile) return new Promise((resolve, reject) => entry.file(resolve, reject)).catch(refuse);
  return readFolder(entry.createReader()).catch(refuse);
}

async function readFolder(reader) {
  const entries = [];
  for (;;) {
    // at most 100 at once
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return Promise.all(entries.map(readEntry));
    entries.push(...some.filter(({ name }) => !name.startsWith(".")));
  }
}

export async function useImages() {
  try {
    await work;
    change({ sources: (await ask("state")).data });
  } catch (error) {
    return changeSets({ problem: error.message });
  }
  const { source, name } = state.sets;
  const classes = listFilled().map(({ name: label, count }) => `${label} (${count})`);
  openClasses(false);
  changeSets({ made: source, told: `${name} is chosen: ${classes.join(", ")}.`, problem: null });
  change({ step: "training" });
  focusLater("training-title");
  return useSource(source);
}

// Once a training has started, nothing comes next here.
export function receiveClasses(event) {
  if (event.run && isActive(event) && state.sets.told) changeSets({ told: "" });
}

// Classes of one's own: images from files, folders or the webcam, which the studio saves as a folder of class folders.

import { ask, post } from "./api.js";
import { startCamera, stopCamera, takeImage } from "./camera.js";
import { useSource } from "./data.js";
import { Button, Note, Picture, Problem, focus, focusLater, plural } from "./parts.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";
import { change, changePart, isActive, state } from "./store.js";

const LIMIT_BYTES = 32e6;
const FEW_IMAGES = 20; // of a class
const SHOWN_IMAGES = 60; // of a class, as the studio sends
export const RECORDED = "Images recorded in one go are alike, so the score is too good. To test, record again later.";
const BURST_MS = 200; // from image to image
const CAMERA = { width: 640, height: 480 };
let lastKey = 0; // of the cards
let turn = 0; // of the last request for a set, which counts
let work = Promise.resolve(); // images are saved and classes renamed one after the other

const normalize = (name) => name.trim().normalize("NFC").toLowerCase();
const isSame = (first, second) => normalize(first) === normalize(second);
const findCard = (key) => state.sets.cards.find((card) => card.key === key);
const changeSets = (fields) => changePart("sets", fields);
const listFilled = () => state.sets.cards.filter(({ count }) => count);

// Beside a place for images, a drop does nothing; otherwise the browser would leave the page.
function refuseDrop(event) {
  if (event.defaultPrevented || !event.dataTransfer.types.includes("Files") || event.target.type === "file") return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "none";
}

document.addEventListener("dragover", refuseDrop);
document.addEventListener("drop", refuseDrop);

export function openClasses(isOpen) {
  change({ isMaking: isOpen });
  changeSets({ camera: null });
  if (!isOpen) return;
  focusLater("set-name");
  if (!state.sets.cards.length) openSet(state.sets.name);
}

// Shows the classes and images of a set that was made before, and room for at least two classes.
async function openSet(name) {
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

function addCard() {
  const { cards } = state.sets;
  let number = cards.length + 1;
  while (cards.some(({ name }) => isSame(name, `Class ${number}`))) number += 1;
  changeSets({ cards: [...cards, makeCard(`Class ${number}`)] });
  return lastKey;
}

function changeCard(key, fields) {
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
async function renameCard(key, input) {
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

function deleteCard(key) {
  focusLater("add-class");
  return doLater(key, async (card, names) => {
    if (card.count) await ask("delete-class", names);
    const { cards, camera } = state.sets;
    changeSets({ cards: cards.filter((other) => other.key !== key), camera: camera === key ? null : camera });
  });
}

function removeImage({ key, images }, file) {
  changeCard(key, { images: images.filter((image) => image.file !== file) });
  return doLater(key, async (card, names) => {
    changeCard(key, { count: await ask("remove-image", { ...names, file }), problem: null });
  });
}

// Saves files one after the other, and returns whether all were; a file that is refused does not stop the others.
async function saveFiles(key, files) {
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
async function readDropped({ items }) {
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

async function useImages() {
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

// What comes after one's own classes, above the recipe.
export function NextStep() {
  const { made, told } = state.sets;
  const next = `${state.net.isChosen ? "lamina chooses the net. " : ""}Next: press Train.`;
  const text = told && made === state.source && `${told} ${state.preview ? next : ""}`;
  return html`<p id="made" aria-live="polite">${text}</p>`;
}

export function Classes() {
  const { text, cards, problem, note } = state.sets;
  const missing = 2 - listFilled().length;
  const what = missing > 1 ? "Add images to two classes: the net learns to tell them apart." : "Add a second class.";
  return html`<div id="making" hidden=${!state.isMaking}>
    <div class="row">
      <label for="set-name">Name of the set</label>
      <input id="set-name" autocomplete="off" value=${text} aria-invalid=${!cards.length && Boolean(problem)}
        onInput=${({ target }) => changeSets({ text: target.value })}
        onChange=${({ target }) => openSet(target.value.trim())} />
    </div>
    <p class="note" aria-live="polite">${note || "The name of a set that you made before opens it."}</p>
    <div id="classes">${cards.map((card) => html`<${Card} key=${card.key} card=${card} />`)}</div>
    <${Problem} text=${problem} />
    <div class="row" hidden=${!cards.length}>
      <${Button} id="add-class" onClick=${() => focusLater(`class-${addCard()}`)}>Add a class</${Button}>
      <${Button} id="use-images" class="primary" disabled=${missing > 0} onClick=${useImages}>
        Use these images
      </${Button}>
    </div>
    ${cards.length > 0 && missing > 0 && html`<${Note}>${what}</${Note}>`}
  </div>`;
}

function Card({ card }) {
  const { key, name, count, images, note, problem } = card;
  const input = useRef();
  const [isAsking, setAsking] = useState(false);
  const hasCamera = state.sets.camera === key;
  const rename = () => renameCard(key, input.current);
  const save = (files) => {
    rename(); // a drop does not end the typing
    return saveFiles(key, files);
  };
  const drop = (event) => {
    event.preventDefault();
    readDropped(event.dataTransfer).then(save);
  };
  const choose = ({ target }) => save([...target.files]).then(() => (target.value = ""));
  const keep = () => {
    setAsking(false);
    focusLater(`class-${key}`);
  };
  const few = count ? "; add more, at least" : "; best are at least";
  const shown = count > images.length ? `, the last ${images.length} shown` : "";
  return html`<fieldset aria-label=${name} onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
    <div class="row">
      <input id=${`class-${key}`} ref=${input} aria-label="Name of the class" autocomplete="off"
        defaultValue=${name} onChange=${rename} />
      <${Button} small onClick=${() => (count ? setAsking(true) : deleteCard(key))}>Delete class</${Button}>
    </div>
    ${isAsking && html`<${Question} card=${card} keep=${keep} />`}
    <div class="row">
      <input type="file" aria-label=${`Images of ${name}`} accept="image/*" multiple onChange=${choose} />
      <${Button} aria-expanded=${hasCamera} onClick=${() => changeSets({ camera: hasCamera ? null : key })}>
        Webcam
      </${Button}>
      <span class="note">or drop images or a folder here</span>
    </div>
    ${hasCamera && html`<${Webcam} card=${card} />`}
    <${Problem} text=${problem} />
    <p class="note" aria-live=${hasCamera ? "off" : "polite"}>
      ${note || plural(count, "image") + (count < FEW_IMAGES ? `${few} ${FEW_IMAGES}` : shown)}
    </p>
    <ul class="thumbnails" aria-label=${`Images of ${name}`}>
      ${images.map((image) => html`<${Thumbnail} key=${image.file} card=${card} image=${image} />`)}
    </ul>
  </fieldset>`;
}

function Question({ card: { key, name, count }, keep }) {
  return html`<div class="row question" role="group" aria-label=${`Delete ${name}`}>
    <span>Delete ${name} and its ${plural(count, "image")}?</span>
    <${Button} onClick=${() => deleteCard(key)}>Delete</${Button}>
    <button type="button" ref=${focus} onClick=${keep}>Keep</button>
  </div>`;
}

function Thumbnail({ card, image: { file, png } }) {
  const remove = ({ currentTarget: { parentElement: item } }) => {
    const next = (item.nextElementSibling ?? item.previousElementSibling)?.querySelector("button");
    (next ?? document.getElementById(`class-${card.key}`)).focus();
    removeImage(card, file);
  };
  return html`<li>
    <${Picture} png=${png} alt=${file} />
    <${Button} small aria-label=${`Remove ${file} of ${card.name}`} onClick=${remove}>×</${Button}>
  </li>`;
}

// What the camera sees, to aim with; images are saved while the button is held, by pointer or key.
function Webcam({ card: { key } }) {
  const video = useRef();
  const [isReady, setReady] = useState(false);
  const [isHeld, setHeld] = useState(false);
  const close = () => changeSets({ camera: null });
  useEffect(() => {
    const element = video.current;
    startCamera(element, CAMERA)
      .then(() => setReady(true))
      .catch((error) => {
        changeCard(key, { problem: error.message });
        close();
      });
    return () => stopCamera(element);
  }, []);
  useLayoutEffect(() => {
    let isOver = !isHeld;
    const record = async () => {
      while (!isOver) {
        const pause = new Promise((resolve) => setTimeout(resolve, BURST_MS));
        const file = new File([await takeImage(video.current, "image/png")], "webcam image");
        if (!(await saveFiles(key, [file]))) setHeld(false);
        changeSets({ recorded: state.sets.source });
        await pause;
      }
    };
    record();
    return () => (isOver = true);
  }, [isHeld]);
  const hold = ({ key: name }) => [undefined, " ", "Enter"].includes(name) && setHeld(true);
  const release = () => setHeld(false);
  return html`<div class="webcam">
    <video ref=${video} aria-label="Webcam" muted playsinline></video>
    <div class="row">
      <button type="button" class="hold" disabled=${!isReady} ref=${isReady ? focus : null}
        onPointerDown=${hold} onPointerUp=${release} onPointerLeave=${release} onPointerCancel=${release}
        onKeyDown=${hold} onKeyUp=${release} onBlur=${release} onContextMenu=${(event) => event.preventDefault()}>
        ${isHeld ? "Recording …" : "Hold to record"}
      </button>
      <${Button} onClick=${close}>Close</${Button}>
    </div>
    <${Note}>${RECORDED}</${Note}>
  </div>`;
}

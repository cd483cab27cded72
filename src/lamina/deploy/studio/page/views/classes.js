// Classes of one's own: images from files, folders or the webcam, which the studio saves as a folder of class folders.

import {
  addCard,
  changeCard,
  changeSets,
  deleteCard,
  listFilled,
  openSet,
  readDropped,
  removeImage,
  renameCard,
  saveFiles,
  useImages,
} from "../actions/classes.js";
import { startCamera, stopCamera, takeImage } from "../camera.js";
import { Button, Note, Picture, Problem, focus, focusLater, plural } from "../parts.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../preact.js";
import { state } from "../state.js";

const FEW_IMAGES = 20; // of a class
export const RECORDED = "Images recorded in one go are alike, so the score is too good. To test, record again later.";
const BURST_MS = 200; // from image to image
const CAMERA = { width: 640, height: 480 };

// Beside a place for images, a drop does nothing; otherwise the browser would leave the page.
function refuseDrop(event) {
  if (event.defaultPrevented || !event.dataTransfer.types.includes("Files") || event.target.type === "file") return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "none";
}

document.addEventListener("dragover", refuseDrop);
document.addEventListener("drop", refuseDrop);

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

// An image to try models on, from a file, the clipboard, a drop or the webcam. The page of `lamina
// serve` and the studio show it. No image is stored.

import { startCamera, stopCamera, takeImage } from "./camera.js";
import { Button } from "./parts.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./preact.js";

const LONGEST_PX = 2048;
const FRAME_MS = 500;
const FRAME_PX = 320;
const NOT_AN_IMAGE = "This is not an image file. Choose an image.";
const UNREADABLE = "The file cannot be read. Choose an image.";

// `predict(image, isCurrent, isLive)` shows the results, and returns a sentence for `say`; results
// of an older image are not to be shown. Larger files than `limitBytes` are reduced. Images may be
// dropped on `area`.
export function ImageForm({ predict, say, limitBytes, area, isCameraFirst = false }) {
  const place = useRef(null);
  const video = useRef(null);
  const form = useRef({ newest: 0 }).current; // the number of the newest image
  const [url, setUrl] = useState("");
  const [isLive, setLive] = useState(false);
  const [isStarting, setStarting] = useState(false);
  const [isDragging, setDragging] = useState(false);
  Object.assign(form, { predict, say, take }); // those of the last drawing

  useLayoutEffect(() => {
    const element = video.current;
    const stop = listen(area ?? place.current, form, setDragging);
    return () => {
      stop();
      form.newest = Infinity;
      stopCamera(element);
    };
  }, []);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);

  async function take(file) {
    stopCamera(video.current);
    setLive(false);
    const turn = ++form.newest;
    if (!file) return form.say(NOT_AN_IMAGE);
    let image = file;
    try {
      await image.slice(0, 1).arrayBuffer();
    } catch {
      return turn === form.newest && form.say(UNREADABLE); // a folder, or a deleted file
    }
    if (image.size > limitBytes) image = await reduce(image); // smaller ones are sent unchanged
    if (turn !== form.newest) return;
    if (!image) return form.say("The image is too large, and this browser cannot reduce it.");
    setUrl(URL.createObjectURL(image));
    form.say("Computing …");
    await show(image, turn, false);
  }

  async function show(image, turn, isFrame) {
    const isCurrent = () => turn === form.newest;
    const text = await form.predict(image, isCurrent, isFrame).catch((error) => error.message);
    if (isCurrent()) form.say(text);
  }

  async function start() {
    const element = video.current;
    setStarting(true);
    const problem = await startCamera(element, { width: FRAME_PX }).catch((error) => error.message);
    if (form.newest === Infinity) return stopCamera(element); // the form was closed meanwhile
    setStarting(false);
    form.say(problem ?? "");
    if (problem) return;
    setUrl("");
    setLive(true);
    const turn = ++form.newest;
    while (turn === form.newest) {
      const pause = new Promise((resolve) => setTimeout(resolve, FRAME_MS));
      const frame = document.hidden ? null : await takeImage(element, "image/jpeg");
      form.frame = frame ?? form.frame;
      if (frame && turn === form.newest) await show(frame, turn, true);
      await pause;
    }
  }

  const switchCamera = () => (isLive ? take(form.frame) : start());
  const camera = html`<${Button} class=${isCameraFirst ? "primary" : ""} disabled=${isStarting} onClick=${switchCamera}>
    ${isLive ? "Stop the webcam" : "Start the webcam"}
  </${Button}>`;
  // cleared on click, so that choosing the same file again is a change
  const clear = ({ target }) => (target.value = "");
  const choose = ({ target }) => target.files.length && take(target.files[0]);
  const file = html`<p>
    Drop an image here, paste one, or <label for="file">choose a file: </label>
    <input type="file" id="file" accept="image/*" onClick=${clear} onChange=${choose} />
  </p>`;
  return html`<div ref=${place} class=${isDragging ? "drop dragging" : "drop"}>
    ${isCameraFirst ? [camera, file] : [file, camera]}
    <video ref=${video} muted playsinline hidden=${!isLive} aria-label="Your webcam"></video>
    ${url && html`<img class="preview" src=${url} alt="Your image" />`}
  </div>`;
}

// Without this, the browser would open a dropped image in place of the page.
function listen(area, form, setDragging) {
  const listeners = {
    dragover(event) {
      event.preventDefault();
      setDragging(true);
    },
    dragleave: ({ relatedTarget }) => relatedTarget || setDragging(false),
    drop(event) {
      event.preventDefault();
      setDragging(false);
      form.take(event.dataTransfer.files[0]);
    },
  };
  const paste = ({ clipboardData: { files } }) => files.length && form.take(files[0]);
  for (const [name, react] of Object.entries(listeners)) area.addEventListener(name, react);
  document.addEventListener("paste", paste);
  return () => {
    for (const [name, react] of Object.entries(listeners)) area.removeEventListener(name, react);
    document.removeEventListener("paste", paste);
  };
}

// A photo of a good camera is larger than a server accepts, and far larger than any model's input.
async function reduce(file) {
  try {
    const image = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = Math.min(1, LONGEST_PX / Math.max(image.width, image.height));
    const size = [Math.round(image.width * scale), Math.round(image.height * scale)];
    const canvas = new OffscreenCanvas(...size);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "white"; // behind transparent pixels
    context.fillRect(0, 0, ...size);
    context.drawImage(image, 0, 0, ...size);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  } catch {
    return null;
  }
}

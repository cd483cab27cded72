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
const TOO_LARGE = "The image is too large, and this browser cannot reduce it.";

// `predict(image, isCurrent, isLive)` shows the results, and returns a sentence for `say`; results
// of an older image are not to be shown. Larger files than `limitBytes` are reduced. Images may be
// dropped on `area`. All of them stay those of the first drawing.
export function ImageForm({ predict, say, limitBytes, area, isCameraFirst = false }) {
  const place = useRef();
  const video = useRef();
  const newest = useRef(0); // number of the newest image
  const frame = useRef(); // the last of the webcam
  const [url, setUrl] = useState("");
  const [isLive, setLive] = useState(false);
  const [isStarting, setStarting] = useState(false);
  const [isDragging, setDragging] = useState(false);

  useLayoutEffect(() => {
    const element = video.current;
    const stop = listen(area ?? place.current, take, setDragging);
    return () => {
      stop();
      newest.current += 1;
      stopCamera(element);
    };
  }, []);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);

  async function take(file) {
    stopCamera(video.current);
    setLive(false);
    const turn = ++newest.current;
    if (!file) return say(NOT_AN_IMAGE);
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      return turn === newest.current && say(UNREADABLE); // a folder, or a deleted file
    }
    const image = file.size > limitBytes ? await reduce(file) : file; // smaller ones are sent unchanged
    if (turn !== newest.current) return;
    if (!image) return say(TOO_LARGE);
    setUrl(URL.createObjectURL(image));
    say("Computing …");
    await show(image, turn, false);
  }

  async function show(image, turn, isFrame) {
    const isCurrent = () => turn === newest.current;
    const text = await predict(image, isCurrent, isFrame).catch((error) => error.message);
    if (isCurrent()) say(text);
  }

  async function start() {
    const element = video.current;
    setStarting(true);
    const started = startCamera(element, { width: FRAME_PX });
    const problem = await started.then(() => "").catch((error) => error.message);
    if (!element.isConnected) return; // the form was closed meanwhile
    setStarting(false);
    say(problem);
    if (problem) return;
    setUrl("");
    setLive(true);
    const turn = ++newest.current;
    while (turn === newest.current) {
      const pause = new Promise((resolve) => setTimeout(resolve, FRAME_MS));
      frame.current = await takeImage(element, "image/jpeg");
      if (!document.hidden && turn === newest.current) await show(frame.current, turn, true);
      await pause;
    }
  }

  // cleared on click, so that choosing the same file again is a change
  const clear = ({ target }) => (target.value = "");
  const choose = ({ target }) => target.files.length && take(target.files[0]);
  const switchCamera = () => (isLive ? take(frame.current) : start());
  const camera = html`<${Button} class=${isCameraFirst ? "primary" : ""} disabled=${isStarting} onClick=${switchCamera}>
    ${isLive ? "Stop the webcam" : "Start the webcam"}
  </${Button}>`;
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

// Calls `take` with what is dropped on the area or pasted, and returns how to end that.
function listen(area, take, setDragging) {
  const controller = new AbortController();
  const { signal } = controller;
  const drag = (isDragging) => (event) => {
    event.preventDefault(); // the browser would open a dropped image in place of the page
    setDragging(isDragging);
  };
  area.addEventListener("dragover", drag(true), { signal });
  area.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || setDragging(false), { signal });
  area.addEventListener("drop", drag(false), { signal });
  area.addEventListener("drop", ({ dataTransfer }) => take(dataTransfer.files[0]), { signal });
  document.addEventListener("paste", ({ clipboardData: { files } }) => files.length && take(files[0]), { signal });
  return () => controller.abort();
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

// An image to try models on, from a file, the clipboard, a drop or the camera, and a closer look at
// its prediction. The page of `lamina serve` and the studio show it. No image is stored.

import { startCamera, stopCamera, takeImage } from "./camera.js";
import { make, paragraph, plain, showCloser } from "./view.js";

const LONGEST_PX = 2048;
const FRAME_MS = 500;
const FRAME_PX = 320;
const LOOKS = { explain: "Explain this prediction", similar: "Similar training images" };
const NOT_AN_IMAGE = "This is not an image file. Choose an image.";
const UNREADABLE = "The file cannot be read. Choose an image.";
let current = null; // what is shown

document.addEventListener("paste", ({ clipboardData: { files } }) => {
  if (current?.form.isConnected && files.length) current.take(files[0]);
});

// The form for an image. `predict(image, isCurrent, isLive)` draws the results, and returns a
// sentence for `status`; results of an older image are not to be drawn. Larger files than
// `limitBytes` are reduced. Images may be dropped on `area`.
export function makeForm({ predict, status, limitBytes, area }) {
  let newest = 0; // number of the newest image
  let frame = null; // the last image of the camera
  const say = (text) => {
    status.textContent = plain(text);
  };
  const preview = make("img", { className: "preview", alt: "Your image", hidden: true });
  const video = make("video", {
    muted: true,
    playsInline: true,
    hidden: true,
    ariaLabel: "Your camera",
  });
  const file = make("input", { type: "file", accept: "image/*", id: "file" });
  // Cleared on click, so that choosing the same file again is a change.
  file.addEventListener("click", () => {
    file.value = "";
  });
  file.addEventListener("change", () => file.files.length && take(file.files[0]));
  const camera = make(
    "button",
    { type: "button", on: { click: () => (video.hidden ? start() : take(frame)) } },
    "Use the camera",
  );
  const label = make("label", { htmlFor: "file" }, "choose a file: ");
  const form = make(
    "div",
    { className: "drop" },
    paragraph("Drop an image here, paste one, or ", label, file),
    camera,
    video,
    preview,
  );
  acceptDrops(area ?? form, form, (dropped) => take(dropped));
  current = { form, take };
  return form;

  async function take(given) {
    stop();
    const turn = ++newest;
    if (!given) return say(NOT_AN_IMAGE);
    let image = given;
    try {
      await image.slice(0, 1).arrayBuffer();
    } catch {
      return turn === newest && say(UNREADABLE); // a folder, or a deleted file
    }
    if (image.size > limitBytes) image = await reduce(image); // smaller ones are sent unchanged
    if (turn !== newest) return;
    if (!image) return say("The image is too large, and this browser cannot reduce it.");
    URL.revokeObjectURL(preview.src);
    Object.assign(preview, { src: URL.createObjectURL(image), hidden: false });
    say("Computing …");
    await show(image, turn, false);
  }

  async function show(image, turn, isLive) {
    const isCurrent = () => turn === newest;
    const text = await predict(image, isCurrent, isLive).catch((error) => error.message);
    if (isCurrent()) say(text);
  }

  function stop() {
    stopCamera(video);
    camera.textContent = "Use the camera";
  }

  async function start() {
    camera.disabled = true;
    await startCamera(video, { width: FRAME_PX }).catch((error) => say(error.message));
    camera.disabled = false;
    if (video.hidden) return;
    camera.textContent = "Stop the camera";
    preview.hidden = true;
    const turn = ++newest;
    while (!video.hidden && turn === newest) {
      const pause = new Promise((resolve) => setTimeout(resolve, FRAME_MS));
      if (!form.isConnected) stop();
      else if (!document.hidden) {
        frame = await takeImage(video, "image/jpeg");
        await show(frame, turn, true);
      }
      await pause;
    }
  }
}

// Without this, the browser would open a dropped image in place of the page.
function acceptDrops(area, form, take) {
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("dragging");
  });
  area.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) form.classList.remove("dragging");
  });
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("dragging");
    take(event.dataTransfer.files[0]);
  });
}

// A photo of a good camera is larger than a server accepts, and far larger than any model's input.
async function reduce(file) {
  try {
    const image = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = Math.min(1, LONGEST_PX / Math.max(image.width, image.height));
    const width = Math.round(image.width * scale);
    const height = Math.round(image.height * scale);
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "white"; // behind transparent pixels
    context.fillRect(0, 0, width, height);
    context.drawImage(image, 0, 0, width, height);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  } catch {
    return null;
  }
}

// Shows that something is being computed, and then it, or the problem; the last call for a place
// counts.
export async function settle(place, text, promise, draw) {
  const told = make("p", { className: "note", ariaLive: "polite" }); // only this line is read aloud
  place.pending = promise;
  place.replaceChildren(told, make("progress", { ariaLabel: text }));
  told.textContent = text;
  let shown;
  try {
    shown = draw(await promise);
  } catch (error) {
    shown = [make("p", { className: "problem", role: "alert" }, error.message)];
  }
  if (place.pending === promise) place.replaceChildren(...shown);
}

// Buttons for what takes longer, about the image that `send` sends, and the places of its results.
export function offerMore(send, tasks = Object.keys(LOOKS)) {
  const row = make("div", { className: "row actions" });
  const places = [];
  for (const task of tasks.filter((name) => name in LOOKS)) {
    const place = make("div");
    const start = () => settle(place, `${LOOKS[task]} …`, send(task), (found) => showCloser(task, found));
    row.append(make("button", { type: "button", on: { click: start } }, LOOKS[task]));
    places.push(place);
  }
  return [row, ...places];
}

// Try: the net on an image of your own, from a file, the clipboard or the camera. No image is stored.

import { post } from "./api.js";
import { settle, showEvidence, showInside, showSimilar } from "./closer.js";
import { make, tell } from "./elements.js";

const FRAME_MS = 500;
const FRAME_PX = 320;

export async function show(place, run) {
  let image = null; // bytes, or the last frame
  const problem = make("p", { className: "problem", role: "alert", hidden: true });
  const [inside, evidence, similar] = [make("div"), make("div"), make("div")];
  const video = make("video", { muted: true, playsInline: true, hidden: true, ariaLabel: "Your camera" });
  const file = make("input", { type: "file", accept: "image/*", id: "try-file", on: { change: () => file.files[0] && take(file.files[0]) } });
  const camera = make("button", { type: "button", on: { click: () => (video.hidden ? start() : stop()) } }, "Use the camera");
  const send = (action) => post(action, image, { run: run.name });
  const closer = (text, action, at, draw) => make("button",
    { type: "button", on: { click: () => settle(at, `${text} …`, send(action), draw) } }, text);
  const more = make("div", { className: "row", hidden: true },
    closer("What the prediction depends on", "explain", evidence, showEvidence),
    closer("Similar images", "similar", similar, (found) => showSimilar(run, found)));
  const drop = make("div", { className: "drop", on: { dragover: (event) => event.preventDefault(), drop: (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  } } }, make("p", {}, "Drop an image here, paste one, or ", make("label", { htmlFor: "try-file" }, "choose a file: "), file), camera, video);
  const note = make("p", { className: "note" }, "The image goes only to this studio, which does not store it.");
  place.replaceChildren(drop, note, problem, inside, more, evidence, similar);

  function paste(event) {
    if (!place.isConnected) document.removeEventListener("paste", paste);
    else if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
  }
  document.addEventListener("paste", paste);

  function take(given) {
    stop();
    clear();
    tell(problem, given ? null : "That was no file. Drop an image file, such as a JPEG or PNG.");
    if (!given) return;
    image = given;
    settle(inside, "Predicting …", send("look"), (found) => {
      more.hidden = false;
      return showInside(found);
    });
  }

  function clear() {
    for (const part of [inside, evidence, similar]) part.replaceChildren();
    more.hidden = true;
  }

  function stop() {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
    video.hidden = true;
    camera.textContent = "Use the camera";
  }

  async function start() {
    tell(problem, null);
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: FRAME_PX } });
      await video.play();
    } catch (error) {
      tell(problem, `The camera cannot be used: ${error.message}. Allow it for this page, connect one, or choose a file.`);
      return;
    }
    clear();
    video.hidden = false;
    camera.textContent = "Stop the camera";
    while (!video.hidden) {
      const until = performance.now() + FRAME_MS;
      if (!place.isConnected) stop();
      else if (!document.hidden) await predictFrame();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, until - performance.now())));
    }
  }

  async function predictFrame() {
    const canvas = make("canvas", { width: FRAME_PX, height: Math.round(FRAME_PX * video.videoHeight / video.videoWidth) || FRAME_PX });
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    image = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
    try {
      inside.replaceChildren(...showInside(await send("look")));
      tell(problem, null);
      more.hidden = false;
    } catch (error) {
      tell(problem, error.message);
    }
  }
}

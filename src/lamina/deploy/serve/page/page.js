import { post, request, RequestError, setToken } from "./request.js";
import { make, plain, showPrediction, showCloser, showProblem } from "./view.js";

const find = (id) => document.getElementById(id);
const LONGEST_PX = 2048;

let server = { models: [] }; // what it serves, and its limits
let newest = 0; // number of the newest image; responses for older images are dropped

function showStatus(text) {
  find("status").textContent = plain(text);
}

async function connect() {
  const isAnother = !find("access").hidden;
  try {
    server = await (await request("v1/model")).json();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    const needsToken = error.status === 401;
    if (needsToken) find("access").hidden = false;
    find("models").textContent = needsToken ? "This server needs a token." : "";
    if (!needsToken) return showStatus(error.message);
    if (isAnother) showStatus("The token is missing or invalid.");
    find("token").focus();
    return;
  }
  find("access").hidden = true;
  showStatus(isAnother ? "Connected." : "");
  const { models } = server;
  const lines = models.map(
    (model) =>
      `${model.model} (${model.net} on ${model.data}${model.score ? `, ${model.score}` : ""})`,
  );
  find("models").textContent = plain(
    `${models.length === 1 ? "Model" : "Models"}: ${lines.join("; ")}`,
  );
  const cards = models.map((model, place) => {
    const card = make("section", { className: "model", id: `model-${place}`, hidden: true });
    card.setAttribute("aria-labelledby", `model-${place}-title`);
    return card;
  });
  find("predictions").replaceChildren(...cards);
}

// A photo of a good camera is larger than the server accepts, and far larger than any model's
// input.
async function reduce(file) {
  try {
    const image = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = Math.min(1, LONGEST_PX / Math.max(image.width, image.height));
    const canvas = new OffscreenCanvas(
      Math.round(image.width * scale),
      Math.round(image.height * scale),
    );
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "white"; // behind transparent pixels
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  } catch {
    return null;
  }
}

async function take(file) {
  if (!file) return showStatus("This is not an image file. Choose an image.");
  await connected;
  if (!server.models.length) return showStatus("No model is loaded yet. Connect first.");
  const turn = ++newest;
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    // a folder, or a deleted file
    if (turn === newest) showStatus("The file cannot be read. Choose an image.");
    return;
  }
  if (file.size > server.limit_bytes) {
    // smaller ones are sent unchanged
    file = await reduce(file);
    if (!file)
      return showStatus(
        `The image is larger than ${server.limit_bytes / 1e6} MB, and this browser cannot reduce it. Choose another one.`,
      );
  }
  if (turn !== newest) return;
  for (const card of find("predictions").children) card.hidden = true;
  const preview = find("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = "Your image";
  preview.hidden = false;
  showStatus("Computing …");
  const results = await Promise.all(
    server.models.map((model, place) => predict(model, find(`model-${place}`), file, turn)),
  );
  if (turn === newest) showStatus(results.join(" "));
}

async function predict(model, card, file, turn) {
  try {
    const prediction = await post("v1/predict", file, { model: model.model });
    if (turn !== newest) return "";
    const text = showPrediction(card, model, prediction, server, (task, button, place) =>
      look(task, model, file, turn, button, place),
    );
    card.hidden = false;
    return `${model.model} predicts ${text}.`;
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    if (turn !== newest) return "";
    const message = error.status === 422 ? `No prediction: ${error.message}.` : error.message;
    showProblem(card, model, message);
    card.hidden = false;
    return `${model.model}: ${message}`;
  }
}

async function look(task, model, file, turn, button, place) {
  button.disabled = true;
  showStatus("Computing …");
  try {
    const found = await post(`v1/${task}`, file, { model: model.model });
    if (turn === newest) showStatus(showCloser(place, task, found));
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    if (turn !== newest) return;
    place.replaceChildren(make("p", { className: "note" }, error.message));
    showStatus(error.message);
    button.disabled = false;
  }
}

for (const id of ["file", "camera"]) {
  // Cleared on click, so that choosing the same file again is a change.
  find(id).addEventListener("click", ({ target }) => {
    target.value = "";
  });
  find(id).addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files[0]);
  });
}

document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) take(file);
});

// Without this, the browser would open a dropped image in place of the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});

find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  if (setToken(find("token").value)) connected = connect();
  else showStatus("The token is invalid: tokens consist of printable ASCII characters.");
});

let connected = connect();

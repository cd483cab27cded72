import { post, request, RequestError, setToken } from "./request.js";
import { makeForm, offerMore } from "./try-form.js";
import { make, plain, showPrediction, showProblem } from "./view.js";

const find = (id) => document.getElementById(id);
let server = { models: [] }; // what it serves, and its limits

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
  const { models, limit_bytes: limitBytes } = server;
  const lines = models.map(({ model, net, data, score }) =>
    score ? `${model} (${net} on ${data}, ${score})` : `${model} (${net} on ${data})`,
  );
  find("models").textContent = plain(`${models.length === 1 ? "Model" : "Models"}: ${lines.join("; ")}`);
  find("predictions").replaceChildren(...models.map(makeCard));
  const status = find("status");
  find("give-form").replaceChildren(makeForm({ predict, status, limitBytes, area: document }));
}

function makeCard(_, place) {
  const card = make("section", { className: "model", id: `model-${place}`, hidden: true });
  card.setAttribute("aria-labelledby", `model-${place}-title`);
  return card;
}

// Shows the predictions of all models for an image, and says what they predict.
async function predict(image, isCurrent, isLive) {
  for (const card of find("predictions").children) card.hidden = !isLive;
  const tasks = isLive ? [] : server.tasks;
  const sentences = server.models.map((model, place) =>
    predictWith(model, find(`model-${place}`), { image, isCurrent, tasks }),
  );
  return (await Promise.all(sentences)).join(" ");
}

async function predictWith(model, card, { image, isCurrent, tasks }) {
  const send = (task) => post(`v1/${task}`, image, { model: model.model });
  try {
    const prediction = await send("predict");
    if (!isCurrent()) return "";
    const text = showPrediction(card, model, prediction, server.coverage);
    card.append(...offerMore(send, tasks));
    card.hidden = false;
    return `${model.model} predicts ${text}.`;
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    if (!isCurrent()) return "";
    const message = error.status === 422 ? `No prediction: ${error.message}.` : error.message;
    showProblem(card, model, message);
    card.hidden = false;
    return `${model.model}: ${message}`;
  }
}

find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  if (setToken(find("token").value)) connect();
  else showStatus("The token is invalid: tokens consist of printable ASCII characters.");
});

connect();

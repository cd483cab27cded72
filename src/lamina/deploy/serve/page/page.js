// The page of `lamina serve`: an image, and what each model predicts for it.

import { ImageForm } from "./image-form.js";
import { html, render } from "./preact.js";
import { Prediction, describe } from "./predictions.js";
import { RequestError, post, request, setToken } from "./request.js";

// What the server serves and its limits, how the connection stands, and what each model predicts.
const state = { server: null, needsToken: false, status: "", shown: new Map() };

function change(fields) {
  Object.assign(state, fields);
  render(html`<${App} />`, document.body);
}

async function connect() {
  const isAnother = state.needsToken;
  try {
    const server = await (await request("v1/model")).json();
    change({ server, needsToken: false, status: isAnother ? "Connected." : "" });
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    if (error.status !== 401) return change({ status: error.message });
    change({ needsToken: true, status: isAnother ? "The token is missing or invalid." : "" });
    document.getElementById("token").focus();
  }
}

function App() {
  const { server, needsToken, status } = state;
  const wait = needsToken ? "This server needs a token." : status ? "" : "Loading the models …";
  const say = (text) => change({ status: text });
  return html`
    <header>
      <h1>Try a model</h1>
      <p id="models">${server ? describeModels(server.models) : wait}</p>
    </header>
    <main>
      ${needsToken && html`<${Access} />`}
      <section id="give" aria-labelledby="give-title">
        <h2 id="give-title">Your image</h2>
        <p>It goes to this server only, and is not stored.</p>
        ${server && html`<${ImageForm} ...${{ predict, say, limitBytes: server.limit_bytes, area: document }} />`}
      </section>
      <p id="status" role="status" aria-live="polite">${status}</p>
      <div id="predictions">
        ${server?.models.map((model, place) => html`<${Card} model=${model} place=${place} />`)}
      </div>
    </main>
    <footer><p><a href="openapi.json">API of this server (OpenAPI)</a></p></footer>
  `;
}

function describeModels(models) {
  const lines = models.map(({ model, net, data, score }) => `${model} (${net} on ${data}${score ? `, ${score}` : ""})`);
  return `${models.length === 1 ? "Model" : "Models"}: ${lines.join("; ")}`;
}

function Access() {
  const submit = (event) => {
    event.preventDefault();
    if (setToken(event.target.elements.token.value)) connect();
    else change({ status: "The token is invalid: tokens consist of printable ASCII characters." });
  };
  return html`<form id="access" onSubmit=${submit}>
    <label for="token">Server token</label>
    <input id="token" type="password" autocomplete="off" required />
    <button>Connect</button>
  </form>`;
}

function Card({ model, place }) {
  const { prediction, problem } = state.shown.get(model.model) ?? {};
  if (!prediction && !problem) return null;
  const id = `model-${place}`;
  return html`<section class="model" id=${id} aria-labelledby=${`${id}-title`}>
    <h2 id=${`${id}-title`}>${model.model}</h2>
    ${problem && html`<p>${problem}</p>`}
    ${prediction && html`<${Prediction} ...${{ model, prediction }} />`}
  </section>`;
}

// Shows the predictions of all models for an image, and says what they predict.
async function predict(image, isCurrent, isLive) {
  if (!isLive) change({ shown: new Map() });
  const sentences = state.server.models.map(async ({ model }) => {
    const show = (fields) => change({ shown: new Map(state.shown).set(model, fields) });
    try {
      const prediction = await post("v1/predict", image, { model });
      if (isCurrent()) show({ prediction });
      return `${model} predicts ${describe(prediction)}.`;
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      const problem = error.status === 422 ? `No prediction: ${error.message}.` : error.message;
      if (isCurrent()) show({ problem });
      return `${model}: ${problem}`;
    }
  });
  return (await Promise.all(sentences)).join(" ");
}

change({});
connect();

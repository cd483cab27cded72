// Take away: what one can do with a trained net outside of the studio.

import { ask, download } from "../api.js";
import { Button, Note, Problem, Progress, count } from "../parts.js";
import { html, useEffect, useState } from "../preact.js";
import { change, changePart, findJob, isActive, state } from "../state.js";

const FILES = [
  ["report.html", "Show the results", "A page with all results, curves and images, in one file."],
  ["model.onnx", "Use the net in other programs", "A model file (ONNX) that needs neither lamina nor PyTorch."],
];

export function Take({ run }) {
  if (!run.folder || isActive(findJob(run.name)))
    return html`<${Note}>When the training of ${run.name} has ended, you can take the net away here.</${Note}>`;
  const load = `run = lamina.load_run(${JSON.stringify(run.folder)})`;
  const predict = `import lamina\n\n${load}\nprint(run.predict("photo.jpg"))`;
  return html`
    ${FILES.map(([file, title, text]) => html`<${MadeFile} ...${{ run, file, title, text }} />`)}
    <h3>Use the net in Python</h3>
    <${Code} text=${predict} title="these lines" />
    <${Note}>The net and its results are in the folder ${run.folder}.</${Note}>
    ${run.command && html`<${Command} text=${run.command} />`}
  `;
}

function Command({ text }) {
  return html`<h3>Train it again without the studio</h3><${Code} text=${text} title="the command" />`;
}

function Code({ text, title }) {
  const [told, tell] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text); // on an http page of another machine, there is none
      tell("Copied.");
    } catch {
      tell("The browser does not allow copying here. Select the text and press Ctrl+C.");
    }
  };
  return html`
    <pre tabindex="0">${text.split("\n").map((line) => html`<code>${line}</code>`)}</pre>
    <div class="row">
      <${Button} onClick=${copy}>Copy ${title}</${Button}><span class="note" aria-live="polite">${told}</span>
    </div>
  `;
}

// A job that makes a file goes on while another tab is open.
function MadeFile({ run, file, title, text }) {
  const [bytes, setBytes] = useState(0);
  const [problem, tell] = useState(null);
  const [isWanted, want] = useState(false); // downloaded once it is made
  const key = `${run.name} ${file}`;
  const job = state.jobs.get(state.making[key]);
  const parity = state.exports[job?.number];
  const isWorking = isActive(job);
  const attempt = (act) => {
    tell(null);
    act().catch((error) => tell(error.message));
  };
  const save = () => download(run.name, file);
  useEffect(() => {
    const request = ask("files", { run: run.name });
    request.then((sizes) => setBytes(sizes[file])).catch(() => null);
    if (isWanted && job?.state === "done") attempt(save);
    if (!isWorking) want(false);
  }, [isWorking]);
  const make = async () => {
    const started = await ask("make", { run: run.name, file });
    change({ jobs: new Map([[started.number, started], ...state.jobs]) }); // it may have ended
    changePart("making", { [key]: started.number });
    want(true);
  };
  const offer = `Download ${file} (${(bytes / 1e6).toFixed(1)} MB)`;
  return html`
    <h3>${title}</h3>
    <${Note}>${text}</${Note}>
    <div class="row">
      ${bytes > 0 && html`<${Button} class="primary" onClick=${() => attempt(save)}>${offer}</${Button}>`}
      <${Button} disabled=${isWorking || !run.rows.length} onClick=${() => attempt(make)}>
        ${bytes > 0 ? `Make ${file} again` : `Make and download ${file}`}
      </${Button}>
      ${isWorking && html`<${Progress} label=${`making ${file}`} />`}
    </div>
    <${Problem} text=${problem ?? (isWorking ? null : job?.problem)} />
    ${parity && html`<${Parity} ...${parity} />`}
  `;
}

function Parity({ images, difference, limit }) {
  const most = `at most ${difference.toExponential(1)} (limit ${limit.toExponential(1)})`;
  return html`
    <p class="good">✓ Compared with the net on ${count(images)} images: the outputs (logits) differ by ${most}.</p>
  `;
}

// Labels worth checking: to keep, to change or to leave out. The check is a job, whose last one
// counts, also after a reload.

import { attempt, choose, findCheck, finish, start, undo } from "../actions/labels.js";
import { ask } from "../api.js";
import { Button, Picture, Problem, Progress, percent, plural } from "../parts.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { isActive, listTrainings, state } from "../state.js";

const SHOWN_ISSUES = 50; // at a time
const ADVICE = "The most doubtful come first. Many of these labels are correct. Your files stay as they are.";

const show = (dialog) => dialog?.showModal(); // the same function always, so that it is called once

export function Labels() {
  const { problem, isCorrected, progress, size = state.preview?.corrections ?? 0 } = state.labels;
  const check = findCheck();
  const isChecking = isActive(check);
  const isHere = check?.checked.source === state.source;
  const issues = isHere && !isChecking && state.preview && check.label_issues;
  const isWaiting = check?.state === "queued" && listTrainings().some(({ number }) => number < check.number);
  const what = isWaiting ? "waits for the training before it" : "trains several nets";
  let text = issues && !issues.length ? "No label is worth checking." : "";
  if (isChecking) text = `${isHere ? "" : `${check.checked.source}: `}The check of the labels ${what}.`;
  const stop = attempt(() => ask("stop", { number: check.number }));
  return html`<div class="row" hidden=${!state.preview || state.preview.kind === "regression"}>
      <${Button} id="check-labels" disabled=${isChecking} aria-describedby="check-help" onClick=${attempt(start)}>
        Check the labels
      </${Button}>
      <span id="check-help" class="note">Are some images in the wrong class? Takes as long as a training.</span>
    </div>
    <div class="row">
      <span id="corrections" class="note">
        ${size > 0 && `${plural(size, "correction applies", "corrections apply")} to all trainings`}
      </span>
      <${Button} small id="undo" hidden=${!isCorrected && !size} onClick=${attempt(undo)}>
        Undo all corrections
      </${Button}>
    </div>
    <${Problem} text=${problem} />
    <div id="label-issues">
      <p class="note" aria-live="polite">${text}</p>
      <div class="row" hidden=${!isChecking}>
        <${Progress} label="check of the labels" value=${progress?.total && progress.done / progress.total} />
        <${Button} onClick=${stop}>Stop the check</${Button}>
      </div>
      ${issues?.length > 0 && html`<${Issues} key=${check.number} check=${check} />`}
    </div>`;
}

function Issues({ check }) {
  const [images, setImages] = useState(new Map()); // PNGs of the first issues
  const seen = new Set(); // a correction is about the whole image
  const issues = check.label_issues.filter(({ image }) => !seen.has(image) && seen.add(image));
  const list = useRef();
  const readImages = async (size) => {
    const names = issues.slice(0, size).map(({ image }) => image);
    const pngs = await ask("images", { ...check.checked, images: names });
    setImages(new Map(names.map((name, place) => [name, pngs[place]])));
  };
  useEffect(() => void attempt(() => readImages(SHOWN_ISSUES))(), []);
  const showMore = async () => {
    await readImages(images.size + SHOWN_ISSUES);
    requestAnimationFrame(() => list.current.children[images.size].querySelector("button")?.focus());
  };
  const draw = (issue) =>
    html`<${Issue} key=${issue.image} check=${check} issue=${issue} png=${images.get(issue.image)} />`;
  return html`<h3>${plural(issues.length, "label")} worth checking</h3>
    <p class="note">${ADVICE}</p>
    <ul ref=${list} class="issues" aria-label="Labels worth checking">
      ${issues.slice(0, images.size).map(draw)}
    </ul>
    <div class="row">
      <${Button} hidden=${images.size >= issues.length} onClick=${attempt(showMore)}>Show more</${Button}>
      <${Button} onClick=${attempt(() => finish(check))}>Done</${Button}>
    </div>`;
}

function Issue({ check, issue, png }) {
  const [isLarge, setLarge] = useState(false);
  const [other, setOther] = useState(issue.likely); // to change the label to
  const { image, given } = issue;
  if (!png) return html`<li class="note">${image} is no longer in the data set.</li>`;
  const draw = () => html`<${Choice} ...${{ check, issue, other, setOther }} />`;
  const close = () => setLarge(false);
  const large = html`<dialog ref=${show} class="large" aria-label="Label worth checking" onClose=${close}>
    <form method="dialog"><button>Close</button></form>
    <${Picture} png=${png} alt=${`labeled ${given}`} />
    ${draw()}
  </dialog>`;
  return html`<li>
    <${Button} class="enlarge" aria-label=${`Enlarge ${image}`} onClick=${() => setLarge(true)}>
      <${Picture} png=${png} alt="" />
    </${Button}>
    ${draw()}
    ${isLarge && large}
  </li>`;
}

// A multi-label image has no classes to choose from.
function Choice({ check, issue: { image, split, given, likely, score }, other, setOther }) {
  const { labels } = state.preview;
  const chosen = state.labels.choices[image];
  const offer = (text, label) => html`<${Button} small aria-label=${`${text}: ${image}`}
    aria-pressed=${text === chosen} onClick=${attempt(() => choose(check, image, text, label))}>${text}</${Button}>`;
  const select = html`<select aria-label=${`Class of ${image}`} value=${other}
    onChange=${({ target }) => setOther(target.value)}>
    ${labels.map((label) => html`<option value=${label}>${label}</option>`)}
  </select>`;
  return html`<div>
    <p>labeled ${given}, likely <strong>${likely}</strong></p>
    <p class="note">${percent(score)}; ${image}, ${split}</p>
    <div class="row">
      ${offer("Keep", "")} ${offer("Leave out", "exclude")} ${labels.length > 0 && [offer("Change to", other), select]}
    </div>
  </div>`;
}

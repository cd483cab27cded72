// How to train on from a run: from a saved epoch, or a changed copy; and what would differ.

import { ask } from "./api.js";
import { describeSource, findSource, useSource } from "./data.js";
import { settleNet, useText } from "./net.js";
import { Button, Details, Note, Problem } from "./parts.js";
import { html, useEffect, useRef, useState } from "./preact.js";
import { Field, Helped, useRecipe } from "./recipe.js";
import { selectRun } from "./runs.js";
import { change, state } from "./store.js";

const REFRESH_MS = 5000; // least time between two looks at the checkpoints of a training
const GONE = "The chosen epoch is no longer saved. Choose another one.";

// What is typed here is for this run alone.
export function Further({ run }) {
  const [values, setValues] = useState({});
  const [problem, setProblem] = useState(null);
  const [isOpen, setOpen] = useState(false);
  const [picked, setPicked] = useState(""); // by a person; else the newest one is selected
  const isAsked = useRef(false); // to continue
  const choices = useCheckpoints(run, isOpen);
  if (!run.net) return null;
  const isGone = picked && !choices.includes(picked);
  const epoch = isGone ? "" : picked || choices[0];
  const fields = state.fields.filter(({ name }) => run.changeable.includes(name));
  const changed = fields
    .map(({ name, label }) => ({ name, label, before: run.recipe[name], after: values[name]?.trim() }))
    .filter(({ before, after }) => after && after !== before);
  const start = async () => {
    if (isAsked.current) return;
    isAsked.current = true;
    setProblem(null);
    try {
      const texts = Object.fromEntries(changed.map(({ name, after }) => [name, after]));
      const job = await ask("continue", { run: run.name, epoch: Number(epoch), fields: texts });
      await selectRun(job.run);
      document.getElementById("run-title")?.focus();
    } catch (error) {
      setProblem(error.message);
    }
    isAsked.current = false;
  };
  const title = (value) => `epoch ${value ? Number(Number(value).toFixed(2)) : ""}`;
  const show = (field) => {
    const { name } = field;
    const type = (text) => setValues({ ...values, [name]: text });
    return html`<${Field} key=${name} id=${`continued-${name}`} field=${field} value=${values[name] ?? ""}
      placeholder=${run.recipe[name]} onInput=${type} />`;
  };
  return html`<div id="further">
    <${Button} id="edit" hidden=${!run.text} onClick=${() => copySettings(run)}>Edit its net and recipe</${Button}>
    <${Note}>${run.text && "Fills steps 1 to 3, for a changed copy."}</${Note}>
    <${Details} summary="Continue from a saved epoch" onToggle=${({ target }) => setOpen(target.open)}>
      <${Note}>Trains from there as a new run, with the net and the images of ${run.name}.</${Note}>
      <div class="row">
        <label for="checkpoint">From</label>
        <select id="checkpoint" value=${epoch} onChange=${({ target }) => setPicked(target.value)}>
          ${isGone && html`<option value="">choose again</option>`}
          ${choices.map((value) => html`<option key=${value} value=${value}>${title(value)}</option>`)}
        </select>
        <${Button} id="continue-from" disabled=${!epoch} onClick=${start}>Continue from ${title(epoch)}</${Button}>
      </div>
      <${Differences} name=${run.name} differences=${changed} />
      <${Problem} id="continue-problem" text=${isGone ? GONE : problem} />
      <${Details} summary="Change its settings">
        ${isOpen && html`<${Helped} id="continued"><div class="fields">${fields.map(show)}</div></${Helped}>`}
      </${Details}>
    </${Details}>
  </div>`;
}

// The saved epochs as texts, read again now and then while they are shown and the run trains.
function useCheckpoints({ name, checkpoints, rows }, isOpen) {
  const [epochs, setEpochs] = useState(checkpoints);
  const nextMs = useRef(0);
  useEffect(() => setEpochs(checkpoints), [checkpoints]);
  useEffect(() => {
    const isChoosing = document.activeElement?.id === "checkpoint"; // what is offered must stay
    if (!isOpen || isChoosing || performance.now() < nextMs.current) return;
    nextMs.current = performance.now() + REFRESH_MS;
    ask("checkpoints", { run: name }).then(setEpochs, () => null);
  }, [isOpen, rows.length]);
  return epochs.map(String);
}

function Differences({ name, differences }) {
  const show = ({ label, before, after }) => html`<li>${label}: ${before} → <strong>${after}</strong></li>`;
  return html`<${Note}>What will differ from ${name}: ${!differences.length && "nothing."}</${Note}>
    <ul class="differences">${differences.map(show)}</ul>`;
}

// Puts a run's data, net and recipe into the steps.
async function copySettings(run) {
  const { name, source, data, size_px: size, val } = run;
  const isKnown = Boolean(findSource(source));
  const problem = isKnown ? null : `The images of ${name}, ${data}, are not in the list. Choose others under Images.`;
  change({ runProblem: problem, step: isKnown ? "net" : "data" });
  const before = JSON.stringify(describeSource());
  if (isKnown) change({ sizePx: String(size ?? ""), val: String(val ?? "") });
  if (isKnown && JSON.stringify({ ...describeSource(), source }) !== before) useSource(source);
  await useText(run.text);
  await settleNet();
  await useRecipe(run.recipe);
  change({ base: { ...run, text: state.net.text } });
  document.getElementById(isKnown ? "net-title" : "data-title").focus();
}

// What Train would change against the run whose settings were put into the steps.
export function Changes() {
  const { base, net, time } = state;
  if (!base) return null;
  const planned = state.plan?.fields ?? {};
  const { size_px: size, val } = describeSource();
  const known = state.fields.filter(({ name }) => name in planned && name in base.recipe);
  const word = (value) => (["", "None"].includes(String(value ?? "")) ? "none" : String(value));
  const differences = [
    ["Images", base.data, findSource()?.name],
    ["Image size", base.size_px, size],
    ["Part held out for val", base.val, val],
    ["Net", base.net, net.isChosen ? "chosen by lamina" : net.text === base.text ? base.net : "changed"],
    ["Time limit", null, time.trim()],
    ...known.map(({ name, label }) => [label, base.recipe[name], planned[name]]),
  ]
    .map(([label, before, after]) => ({ label, before: word(before), after: word(after) }))
    .filter(({ before, after }) => before !== after);
  return html`<div id="changes">
    <${Differences} name=${base.name} differences=${differences} />
    <${Button} small onClick=${() => change({ base: null })}>Hide this list</${Button}>
  </div>`;
}

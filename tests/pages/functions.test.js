// The pages' functions of numbers and texts, without a browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

import { describe } from "../../src/lamina/deploy/serve/page/predictions.js";
import { compare } from "../../src/lamina/deploy/studio/page/actions/runs.js";
import { useRecipe } from "../../src/lamina/deploy/studio/page/actions/plan.js";
import { listSeries } from "../../src/lamina/deploy/studio/page/views/curves.js";
import { change, findJob, isActive, state } from "../../src/lamina/deploy/studio/page/state.js";
import { describeSelected } from "../../src/lamina/deploy/studio/page/views/status.js";
import { findMeaning, readGlossary } from "../../src/lamina/deploy/studio/page/views/term.js";
import { count, duration, percent, plain, short } from "../../src/lamina/deploy/web/page/parts.js";
import { html } from "../../src/lamina/deploy/web/page/preact.js";

test("text from data shows control characters and direction marks as code points", () => {
  assert.equal(plain("cat"), "cat");
  assert.equal(plain("a\nb\u202eg"), "a\\u000ab\\u202eg");
  assert.equal(plain("\udce9"), "\\udce9");
  assert.equal(plain("<b>"), "<b>"); // becomes a text node, so markup stays
  assert.equal(plain(3), "3");
});

test("a line end in a text of a template is a space, and one from data is shown", () => {
  const texts = (node) => (node?.props?.children === undefined ? node : [node.props.children].flat().map(texts));
  const drawn = html`<p>
    first
    second <b>third
    fourth</b> ${"a\nb"}
  </p>`;
  assert.deepEqual(texts(drawn), ["first second ", ["third fourth"], " ", "a\nb"]);
});

test("fractions are percentages with one digit, and ties round to even as in Python", () => {
  assert.equal(percent(0.1225), "12.2 %");
  assert.equal(percent(0.5), "50.0 %");
  assert.equal(percent(1), "100.0 %");
  assert.equal(percent(0.12345), "12.3 %");
});

test("counts are grouped, and large ones have a unit", () => {
  assert.equal(count(1234567), "1,234,567");
  assert.equal(short(999), "999");
  assert.equal(short(9_999), "9,999");
  assert.equal(short(10_000), "10 k");
  assert.equal(short(33_600_000), "33.6 M");
  assert.equal(short(2_100_000_000), "2.1 G");
});

test("the glossary explains a term, also in the plural, with a unit, or by another name", () => {
  const file = new URL("../../src/lamina/deploy/studio/page/glossary.md", import.meta.url);
  state.glossary = readGlossary(readFileSync(file, "utf8"));
  const terms = ["Loss", "Epochs", "val", "Batch size", "Learning rate", "95 % interval", "unit", "receptive field"];
  const others = ["multiply-adds", "Label smoothing", "Seed", "Cutout (px)", "pretrained", "dead units"];
  for (const term of [...terms, ...others]) assert.match(findMeaning(term), /^[A-Z].*[.)]$/u, term);
  assert.equal(findMeaning("Batch size"), findMeaning("batch"));
  assert.equal(findMeaning("Flow"), undefined);
});

test("durations are in the unit that a person would use", () => {
  assert.equal(duration(-1), "0 s");
  assert.equal(duration(89.4), "89 s");
  assert.equal(duration(90), "2 min");
  assert.equal(duration(5399), "90 min");
  assert.equal(duration(5400), "1.5 h");
});

test("a prediction is its class, its labels or its numbers", () => {
  assert.equal(describe({ predicted: "cat" }), "cat");
  assert.equal(describe({ predicted: ["wet", "red"] }), "wet, red");
  assert.equal(describe({ predicted: [] }), "no label");
  const numbers = [
    { name: "10", value: 1.23456789 },
    { name: "2", value: 1e-7 },
  ];
  assert.equal(describe({ predicted: {}, predictions: numbers }), "10 1.23457, 2 1e-7");
});

state.fractions = ["accuracy"];

test("a run's series are its losses and the score that it has on val", () => {
  const rows = [
    { epoch: 1, train_loss: 2, train_accuracy: 0.1, val_loss: 2.5, val_accuracy: 0.2 },
    { epoch: 2, train_loss: 1, train_accuracy: 0.3 },
  ];
  const { loss, score, format, end } = listSeries({ name: "first", rows });
  const read = ({ label, points }) => [label, ...points.flat()];
  assert.deepEqual(loss.map(read), [
    ["val (dashed)", 1, 2.5],
    ["train", 1, 2, 2, 1],
  ]);
  // also if the last epoch has none
  assert.deepEqual(score.map(read), [
    ["val accuracy (dashed)", 1, 0.2],
    ["train accuracy", 1, 0.1, 2, 0.3],
  ]);
  assert.equal(format(0.25), "25.0 %");
  assert.equal(format(null), "");
  assert.equal(end, 2);
});

test("runs that are compared keep their colors, and labels name them", () => {
  const rows = [{ epoch: 1, train_loss: 2, val_loss: 1, val_mean_absolute_error: 0.5 }];
  const [a, b, c] = ["a", "b", "c"].map((name) => ({ name, rows }));
  const findColor = ({ loss }, name) => loss.find(({ label }) => label.startsWith(name)).color;
  const first = listSeries({ ...a, others: [b] });
  const second = listSeries({ ...b, others: [c] });
  assert.equal(findColor(second, "b"), findColor(first, "b"));
  assert.notEqual(findColor(second, "c"), findColor(first, "b"));
  assert.equal(second.loss[1].label, "b: train");
  assert.equal(second.format(0.5), "0.5000"); // an error is no fraction
});

test("the newest job of a run counts, and only queued and running jobs are active", () => {
  state.jobs = new Map([
    [1, { run: "first", state: "failed" }],
    [2, { run: "first", state: "running" }],
    [3, { run: "second", state: "queued" }],
  ]);
  assert.equal(findJob("first").state, "running");
  assert.equal(findJob("third"), undefined);
  assert.deepEqual(
    [...state.jobs.values()].map((job) => isActive(job)),
    [false, true, true],
  );
  assert.equal(isActive(undefined), false);
});

test("the documented browser code decides as lamina predict does", () => {
  const context = vm.createContext({});
  vm.runInContext(readFileSync(new URL("../../docs/prepare_image.js", import.meta.url), "utf-8"), context);
  const { decide } = context;
  assert.equal(decide("single-label", ["cat", "dog"], [0.4, 0.6], []), "dog");
  assert.equal(decide("binary", ["no", "yes"], [0.5, 0.5], [0.5]), "no"); // not above it
  assert.equal(decide("binary", ["no", "yes"], [0.7, 0.3], [0.2]), "yes");
  const labels = decide("multi-label", ["wet", "red"], [0.9, 0.1], [0.5, 0.05]);
  assert.deepEqual([...labels], ["wet", "red"]);
  assert.equal(decide("regression", ["cm"], [3], []), undefined);
});

test("the settings of a run are not filled in for a data set that was chosen meanwhile", async () => {
  globalThis.requestAnimationFrame = () => 1;
  const begin = () => {
    change({ source: "mnist", preview: null, reading: { downloadMb: 12 } });
    return useRecipe({ lr: "0.5", seed: "None" });
  };
  let filling = begin();
  change({ preview: { images: {} } });
  await filling;
  assert.deepEqual(state.values, { lr: "0.5" });
  filling = begin();
  change({ source: "shapes" }); // mnist is never downloaded
  await filling;
  assert.deepEqual(state.values, {});
});

const NOW = 1e12; // in milliseconds

// The line in the header for a run and the newest job that trains it.
function describeRun(run, job) {
  const whole = { name: "a", rows: [], steps: [], planned: 5, net: "mlp", score: null, is_finished: false, ...run };
  const jobs = job ? [[1, { number: 1, run: "a", state: "running", began: NOW, ...job }]] : [];
  Object.assign(state, { selected: "a", run: whole, jobs: new Map(jobs) });
  return describeSelected();
}

test("the status line says what the selected run does", (context) => {
  context.mock.method(Date, "now", () => NOW);
  const rows = [{ epoch: 1, train_seconds: 30, val_accuracy: 0.5 }];
  const steps = [
    { at: 0.1, seconds: 1 },
    { at: 0.2, seconds: 7 },
  ];
  assert.equal(describeRun({}, { state: "queued" }), "a waits for the training before it");
  assert.equal(describeRun({}, {}), "a: preparing");
  assert.equal(describeRun({ steps }, {}), "epoch 1/5, about 5 min left");
  assert.equal(describeRun({ rows }, {}), "epoch 2/5, val accuracy 50.0 %, about 2 min left");
  assert.equal(describeRun({ rows }, { is_stopping: true }), "epoch 2/5, pausing …");
  assert.equal(describeRun({ rows }, { is_finishing: true }), "epoch 2/5, finishing, then testing …");
  assert.equal(describeRun({ rows, planned: 1 }, {}), "epoch 1/1, testing …");
});

test("within a time limit, the status line counts the time down and promises no epochs", (context) => {
  context.mock.method(Date, "now", () => NOW);
  const rows = [{ epoch: 1, train_seconds: 3, val_accuracy: 0.5 }];
  const begin = (seconds) => ({ seconds: 540, began: NOW - 1000 * seconds });
  assert.equal(describeRun({}, { ...begin(10), chooses_net: true }), "a: choosing the net, 9 min of 9 min left");
  assert.equal(describeRun({}, { ...begin(470), chooses_net: true }), "a: choosing the net, 70 s of 9 min left");
  assert.equal(describeRun({ steps: [{ at: 0.1, seconds: 1 }] }, begin(475)), "epoch 1, 65 s of 9 min left");
  assert.equal(describeRun({ rows }, begin(480)), "epoch 2, val accuracy 50.0 %, 60 s of 9 min left");
});

test("the status line says what came of a run", () => {
  const rows = [{ epoch: 1 }, { epoch: 2 }];
  assert.equal(describeRun({ rows }, null), "paused at epoch 2/5; Continue resumes exactly there");
  assert.equal(describeRun({ rows, is_finished: true }, null), "done: a has no score");
  assert.equal(describeRun({ rows, score: "test error 1.2" }, null), "done: test error 1.2; a");
  const guessed = { rows, score: "test accuracy 10.0 % (36 images)", is_better: false, baseline_text: "9.0 %" };
  assert.equal(describeRun(guessed, null), "done: test accuracy 10.0 %, hardly better than guessing (9.0 %); a");
  const counted = { ...guessed, score_value: 8 / 9, images: 36, baseline_value: 1 / 3, is_better: true };
  assert.equal(describeRun(counted, null), "done: right on 32 of 36 new images; guessing gets 12; a");
  assert.equal(describeRun({ rows }, { state: "failed" }), "a was stopped after epoch 2/5");
  assert.equal(describeRun({ net: undefined }, { state: "failed" }), "a could not be trained");
  assert.equal(describeRun({ net: undefined }, { state: "stopped" }), "a was cancelled; nothing was saved");
  assert.equal(describeRun({ net: undefined }, null), "a is no longer among the runs");
});

test("curves of all ticked runs are drawn beside those of the selected one", async (context) => {
  globalThis.requestAnimationFrame = () => 1;
  const read = async (_, { body }) => Response.json({ name: JSON.parse(body).run });
  context.mock.method(globalThis, "fetch", read);
  const runs = ["a", "b", "c"].map((name) => ({ name }));
  Object.assign(state, { runs, run: { name: "a", parent: null }, compared: new Set(["deleted"]) });
  const listOthers = () => state.run.others.map(({ name }) => name);
  await compare("b", true);
  assert.deepEqual(listOthers(), ["b"]);
  await compare("c", true);
  await compare("a", true);
  assert.deepEqual(listOthers(), ["b", "c"]);
  await compare("b", false);
  assert.deepEqual(listOthers(), ["c"]);
});

// Actions on the recipe: fill in its fields, and ask what the studio would train.

import { ask } from "../api.js";
import { change, readSteps, state } from "../state.js";

const WAIT_MS = 250; // after the last key
let timer = 0;
let asked = 0; // number of the last request for a plan, whose response counts

export function setFields(values) {
  fill({ values: { ...state.values, ...values } });
}

// Changes what was filled in: values, time, recipeName.
export function fill(texts) {
  change({ ...texts, trainingProblem: null });
  refreshPlan();
}

// Asks what Train would do with the data, the net and the fields.
export function refreshPlan() {
  clearTimeout(timer);
  asked += 1;
  timer = setTimeout(plan, WAIT_MS);
}

async function plan() {
  const turn = ++asked;
  if (!state.preview) return null;
  const planned = await ask("plan", readSteps()).catch(() => null);
  // an error keeps what the form showed
  if (turn === asked) change({ plan: planned?.problem ? { ...planned, fields: state.plan?.fields } : planned });
  return planned;
}

// Fills the form with all fields in which the recipe of a run differs from the plan.
export async function useRecipe(recipe) {
  const values = {};
  change({ values, recipeName: "", time: "" });
  const { source } = state;
  const isReading = () => !state.preview && !state.reading?.problem && state.source === source;
  while (isReading()) await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  const planned = (await plan())?.fields ?? {};
  if (state.values !== values || state.source !== source) return; // edited meanwhile
  const differing = Object.entries(recipe).filter(([name, value]) => value !== planned[name] && value !== "None");
  setFields(Object.fromEntries(differing));
}

// The names of the recipes of a preset, its default first.
export function listRecipes(preset) {
  return Object.keys(state.presets.find(({ name }) => name === preset)?.recipes ?? {});
}

// A recipe of another net does not stay.
export function useRecipeOf(preset) {
  if (!listRecipes(preset).includes(state.recipeName)) change({ recipeName: "" });
}

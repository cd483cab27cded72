// The server's API. The token stays in this module's memory: it is never stored.

let token = "";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(given) {
  token = given;
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new ApiError(0, "The server cannot be reached. Is it still running?");
  }
  let values;
  try {
    values = await response.json();
  } catch {
    throw new ApiError(response.status, `The server responded with status ${response.status}.`);
  }
  if (!response.ok) throw new ApiError(response.status, values.error ?? `No prediction: ${values.problem}.`);
  return values;
}

// The models, and what the server does with images.
export function findModels() {
  return ask("v1/model");
}

// `task` is predict, explain or similar.
export function send(task, model, image) {
  const headers = { "Content-Type": "application/octet-stream" };
  return ask(`v1/${task}?model=${encodeURIComponent(model)}`, { method: "POST", body: image, headers });
}

// Requests of a page to the program that served it. The token comes from the address that the
// program printed, or from the form of the page, and stays in the storage of this tab.

const TOKEN = "lamina-token";
let token = readToken();

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function readToken() {
  const { hash, pathname } = window.location;
  if (!hash.startsWith("#token=")) return load(TOKEN) ?? "";
  history.replaceState(null, "", pathname); // neither history nor bookmarks keep it
  try {
    const text = decodeURIComponent(hash.slice("#token=".length));
    save(TOKEN, text);
    return text;
  } catch {
    return ""; // the page asks for it
  }
}

// Returns whether the token can be sent: a header contains only printable ASCII.
export function setToken(text) {
  token = /^[ -~]+$/u.test(text) ? text : "";
  save(TOKEN, token);
  return token !== "";
}

// What outlives a reload of the page, unless the browser refuses to keep it.
export function load(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}

export function save(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // The page works without it.
  }
}

// The response, if it is a success.
export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch {
    throw new RequestError(0, "The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const { error, problem } = await response.json().catch(() => ({}));
  throw new RequestError(response.status, error ?? problem ?? `The server responded with status ${response.status}.`);
}

// The JSON of the response to some bytes, with values in the address.
export async function post(path, bytes, values) {
  const address = `${path}?${new URLSearchParams(values)}`;
  const headers = { "Content-Type": "application/octet-stream" };
  return (await request(address, { method: "POST", body: bytes, headers })).json();
}

// Requests of a page to the program that served it. The token stays in this module's memory: it is
// never stored.

let token = "";

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Returns whether the token can be sent: a header contains only printable ASCII.
export function setToken(given) {
  token = /^[ -~]+$/u.test(given) ? given : "";
  return token !== "";
}

// The response, if it is a success.
export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch {
    throw new RequestError(0, "The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const { error, problem } = await response.json().catch(() => ({}));
  throw new RequestError(
    response.status,
    error ?? problem ?? `The server responded with status ${response.status}.`,
  );
}

// The JSON of the response to some bytes, with values in the address.
export async function post(path, bytes, values) {
  const headers = { "Content-Type": "application/octet-stream" };
  return (
    await request(`${path}?${new URLSearchParams(values)}`, {
      method: "POST",
      body: bytes,
      headers,
    })
  ).json();
}

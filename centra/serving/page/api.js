// What the page asks of the server.

const KEY = "centra-token";
const PREFIX = /channels\/([^/]+)\/$/;
const BROKEN = "The server broke off before it had said everything.";

/** The server refused, or cannot be reached. */
export class Refusal extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, field?: string | null}} details
   */
  constructor(message, { status = 0, field = null } = {}) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The channel that is asked, by the page's address: all calls are relative to it. */
export const channel = {
  /** Its name; null where the address has none. */
  get: () => PREFIX.exec(location.pathname)?.[1] ?? null,
  set: (name) => history.replaceState(null, "", `${location.pathname.replace(PREFIX, "")}channels/${name}/`),
};

/** The channels of the server that may be asked, by name; none where there is nothing to choose. */
export async function readChannels() {
  const { channels } = await (await call("v1/channels")).json();
  return channels.map((found) => found.name).filter((name) => name !== null);
}

/** What is served now. */
export async function readRelease() {
  return (await call("v1/release")).json();
}

/** The layers and branches of what is served now. */
export async function readLayers() {
  return (await call("v1/release/layers")).json();
}

/**
 * Ask, and read the answers as they come.
 * @param {object} body As POST /v1/predict takes it.
 * @param {AbortSignal} signal Ends it.
 * @returns {AsyncGenerator<object>} One object a line; the last has "end".
 */
export async function* predict(body, signal) {
  const response = await call("v1/predict", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
    body: JSON.stringify(body),
    signal,
  });
  yield* lines(response.body);
}

async function call(path, { headers = {}, ...options } = {}) {
  const known = token.get();
  const authorization = known ? { Authorization: `Bearer ${known}` } : {};
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { ...headers, ...authorization },
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  const wait = response.headers.get("Retry-After");
  const again = wait ? ` Try again in ${wait} s.` : "";
  return new Refusal((problem.detail ?? `${response.status} ${response.statusText}`) + again, {
    status: response.status,
    field: problem.field ?? null,
  });
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Refusal(BROKEN);
    });
    const parts = (rest + (value ?? "")).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      const line = JSON.parse(part);
      yield line;
      if (line.end) return;
    }
    if (done) throw new Refusal(BROKEN);
  }
}

// Talks to the server: the token, JSON, and Server-Sent Events read from a fetch stream.

const KEY = "awareness.token";

export class Refused extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

// The fragment is never sent to a server; it is also taken out of the address, so that it is not copied with it.
export function takeToken() {
  const found = /^#token=([\w.~-]+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, found[1]);
  history.replaceState(null, "", location.pathname);
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token.trim());
}

function headers(body) {
  const token = sessionStorage.getItem(KEY) ?? "";
  const all = body === undefined ? {} : { "Content-Type": "application/json" };
  if (/^[\x21-\x7e]+$/.test(token)) all.Authorization = `Bearer ${token}`;
  return all;
}

async function send(path, { body, method, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: headers(body),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the server does not answer", "start it again: awareness serve");
  }
  if (response.ok) return response;
  let said = {};
  try { said = (await response.json()).error ?? {}; } catch { /* no JSON: the status has to do */ }
  const refused = new Refused(response.status, said.message ?? `the server says ${response.status}`, said.hint);
  if (response.status === 401) document.dispatchEvent(new CustomEvent("token-refused"));
  throw refused;
}

// path: with its parameters, which are encoded here.
export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${given.map(([name, value]) => `${name}=${encoded(String(value))}`).join("&")}` : path;
}

// Percent-encoded. Bytes of a path that are not UTF-8 came as the surrogates U+DC80 to U+DCFF, and go back as bytes.
function encoded(text) {
  return text.split(/([\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff])/).map((part) => {
    if (!/^[\ud800-\udfff]$/.test(part)) return encodeURIComponent(part);
    const code = part.charCodeAt(0);
    return code >= 0xdc80 && code <= 0xdcff ? `%${(code - 0xdc00).toString(16)}` : "%3F";
  }).join("");
}

export async function get(path, parameters = {}, signal = undefined) {
  return (await send(query(path, parameters), { signal })).json();
}

export async function post(path, body, signal = undefined) {
  return (await send(path, { body, signal })).json();
}

// Yields [event, data] until the stream ends. An `error` event is thrown.
export async function* events(path, body, signal) {
  const response = await send(path, { body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let isOver = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += value ?? "";
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const found = parsed(block);
        if (found === null) continue;
        if (found[0] === "error") throw new Refused(500, found[1].message, found[1].hint);
        yield found;
      }
      isOver = done;
      if (done) return;
    }
  } finally {
    if (!isOver) reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  let event = "message";
  const data = [];
  for (const row of block.split(/\r?\n/)) {
    if (row.startsWith("event:")) event = row.slice(6).trim();
    else if (row.startsWith("data:")) data.push(row.slice(5).replace(/^ /, ""));
  }
  return data.length ? [event, JSON.parse(data.join("\n"))] : null;
}

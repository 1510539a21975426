// The index: what is in it, what has changed, and indexing with its progress.

import { events, get, query } from "./api.js";
import { $, bytes, counted, el, line } from "./dom.js";
import { onChange, problem, state } from "./state.js";

const MOST_NOTES = 20;
let running = null;

export function begin() {
  $("index-form").addEventListener("submit", (event) => { event.preventDefault(); index(); });
  $("index-stop").addEventListener("click", stop);
  onChange("repository", () => { stop(); if (!$("view-index").hidden) opened(); });
}

export function stop() {
  if (running === null) return false;
  running.abort();
  return true;
}

export async function opened() {
  try {
    const status = await get("/status", { repository: state.repository });
    show(status);
    problem(null);
  } catch (error) { $("index-facts").replaceChildren(); problem(error); }
}

function show(status) {
  const changes = ["added", "changed", "removed"].filter((word) => status.drift?.[word]?.length);
  const facts = {
    Repository: status.repository,
    Files: status.files.toLocaleString("en"),
    Chunks: status.chunks.toLocaleString("en"),
    Latents: `${status.latents.count.toLocaleString("en")}, ${bytes(status.latents.bytes)}`,
    "On disk": bytes(status.bytes),
    "Searched with": status.router ?? "–",
    "Latents stored as": status.quant ?? "–",
    "Changed since": !status.is_indexed ? "not indexed yet" : changes.length ? changes.map((word) => `${counted(status.drift[word].length, "file")} ${word}`).join(", ") : "nothing",
  };
  $("index-facts").replaceChildren(...Object.entries(facts).flatMap(([name, fact]) => [el("dt", { text: name }), el("dd", { text: line(fact) })]));
}

async function index() {
  stop();
  const own = new AbortController();
  running = own;
  problem(null);
  $("index-stop").hidden = $("index-progress").hidden = false;
  $("index-notes").replaceChildren();
  $("index-bar").removeAttribute("value");
  $("index-what").textContent = "waiting";
  $("index-status").textContent = "";
  try {
    const minutes = Number($("index-minutes").value) || 0;
    for await (const [event, data] of events(query("/index", { repository: state.repository }), { minutes }, own.signal)) {
      if (event === "progress") progress(data);
      else if (event === "note") note(data.message);
      else if (event === "indexed") {
        $("index-status").textContent = `${counted(data.files, "file")}, ${counted(data.chunks, "chunk")}: ${data.added} added, ${data.reused} reused, ${data.removed} removed; `
          + `${counted(data.encoded, "latent")} made, ${data.pending} left, in ${data.seconds.toFixed(1)} s`;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") $("index-status").textContent = "stopped; what was indexed stays";
    else problem(error);
  } finally {
    if (running === own) { running = null; $("index-stop").hidden = $("index-progress").hidden = true; }
  }
  if (running === null) opened();
}

function progress({ what, done, total }) {
  const bar = $("index-bar");
  if (total) { bar.max = total; bar.value = done; } else bar.removeAttribute("value");
  $("index-what").textContent = line(total ? `${what}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : what);
}

function note(message) {
  if ($("index-notes").children.length < MOST_NOTES) $("index-notes").append(el("li", { text: line(message) }));
}

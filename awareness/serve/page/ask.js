// Ask: the question, the answer as it grows, its sources. The code opens beside it (reader.js).

import { events } from "./api.js";
import { $, counted, el, line, percent } from "./dom.js";
import * as reader from "./reader.js";
import { change, onChange, problem, state } from "./state.js";

const MOST_TURNS = 4; // that a question carries along
let turns = [];
let running = null;

export function begin() {
  $("ask-form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
  });
  $("ask-stop").addEventListener("click", stop);
  onChange("repository", () => { stop(); turns = []; $("answers").replaceChildren(); say(""); change("answer", null); reader.close(); });
}

// Ends the answer that is being generated. Returns whether there was one.
export function stop() {
  if (running === null) return false;
  running.abort();
  return true;
}

// number: of a source of the last answer, from 1.
export function openSource(number) {
  const { answer } = state;
  if (answer && number <= (answer.citations ?? []).length) reader.openSource(answer, number);
}

async function ask() {
  const question = $("question").value.trim();
  if (!question) return;
  stop();
  problem(null);
  const own = new AbortController();
  running = own;
  $("ask-stop").hidden = false;
  const card = new Card(question);
  $("answers").prepend(card.node);
  const scope = $("ask-scope").value.split(",").map((glob) => glob.trim()).filter(Boolean);
  const body = {
    question,
    repository: state.repository,
    top_k: Number($("ask-top-k").value) || 8,
    long: $("ask-long").checked,
    ...(scope.length ? { scope } : {}),
    ...($("ask-follow").checked && turns.length ? { history: turns.slice(-MOST_TURNS) } : {}),
  };
  say("reading …");
  try {
    for await (const [event, data] of events("/ask", body, own.signal)) {
      if (event === "queued" && data.position > 0) say(`${counted(data.position, "question")} before this one`);
      else if (event === "route") { card.route(data.hits); say("answering …"); }
      else if (event === "begun") card.begun(data.text);
      else if (event === "sentence") card.sentence(data);
      else if (event === "progress") say(data.total ? `${data.what} ${data.done} of ${data.total}` : data.what);
      else if (event === "note") say(data.message);
      else if (event === "answer") finish(card, data);
      else if (event === "refusal") { card.refusal(data); say("the memory does not answer it"); }
    }
  } catch (error) {
    card.end();
    if (error.name === "AbortError") say("stopped");
    else { say(""); card.failed(error); problem(error); }
  } finally {
    if (running === own) { running = null; $("ask-stop").hidden = true; }
  }
}

function finish(card, answer) {
  answer.repository = state.repository;
  turns.push({ question: answer.question, answer: answer.answer });
  card.answer(answer);
  const cited = new Set(answer.sentences.map((s) => s.source).filter(Boolean)).size;
  say(`answered, ${counted(cited, "source")}, first token after ${answer.timings.first_token_s.toFixed(2)} s`);
  change("answer", answer);
  reader.showAnswer(answer);
}

function say(text) {
  $("ask-status").textContent = text;
}

// One question with its answer.
class Card {
  constructor(question) {
    this.text = el("p", { class: "answer", "aria-live": "polite", "aria-busy": "true" });
    this.growing = el("span", { class: "growing", "aria-hidden": "true" });
    this.text.append(this.growing);
    this.sources = el("ol", { class: "sources", "aria-label": "Sources" });
    this.foot = el("p", { class: "foot" });
    this.node = el("article", { class: "card" }, el("h3", { text: question }), this.text, this.sources, this.foot);
  }

  route(hits) {
    this.list(hits.map((hit) => ({ ...hit, attention: null, evidence: [] })), null);
  }

  begun(text) {
    this.growing.textContent = text ? ` ${line(text)}` : "";
  }

  sentence(sentence) {
    this.growing.textContent = "";
    this.growing.before(...this.marked(sentence, null));
  }

  // A sentence with the numbers of its sources as buttons.
  marked(sentence, answer) {
    const nodes = [el("span", { class: "sentence" }, ...withCode(`${sentence.text.trim()} `))];
    if (sentence.source) {
      const open = () => { if (answer ?? this.given) reader.openSource(answer ?? this.given, sentence.source, sentence.lines); };
      nodes.push(el("button", { type: "button", class: "mark", "aria-label": `Open source ${sentence.source}`, text: `[${sentence.source}]`, on: { click: open } }), " ");
    }
    if (sentence.unknown?.length) {
      nodes.push(el("span", { class: "unknown", title: `not in the sources: ${line(sentence.unknown.join(", "))}`, text: "(not in the sources)" }), " ");
    }
    return nodes;
  }

  answer(answer) {
    this.given = answer;
    this.text.replaceChildren(...answer.sentences.flatMap((sentence) => this.marked(sentence, answer)));
    this.end();
    this.list(answer.citations, answer);
    const { memory, timings } = answer;
    this.foot.textContent = line(
      `${answer.model}, ${answer.mode}: ${counted(memory.tokens, "token")} of memory, first token ${timings.first_token_s.toFixed(2)} s, `
      + `${answer.tokens_per_s.toFixed(answer.tokens_per_s < 10 ? 1 : 0)} tokens/s, ${timings.total_s.toFixed(1)} s in all`);
  }

  list(places, answer) {
    const cited = new Set((answer?.sentences ?? []).map((s) => s.source));
    this.sources.replaceChildren(...places.map((place, i) => {
      const number = i + 1;
      const name = `${place.path}:${place.start_line}-${place.end_line}`;
      const open = () => (answer ? reader.openSource(answer, number) : reader.openPlace(state.repository, place));
      return el("li", { class: cited.has(number) ? "cited" : null },
        el("button", { type: "button", class: "place", on: { click: open } }, el("span", { class: "number", text: `[${number}]` }), " ", el("span", { class: "path", text: line(name) })),
        el("span", { class: "symbol", title: line(place.symbol ?? ""), text: line(place.symbol ?? "") }),
        place.attention === null || place.attention === undefined ? null : meter(place.attention));
    }));
  }

  refusal(data) {
    this.text.replaceChildren(el("span", { text: "Nothing in the memory seems to answer this. Nearest:" }));
    this.end();
    this.list(data.nearest ?? [], null);
  }

  failed(error) {
    this.foot.textContent = line(error.message);
  }

  end() {
    this.text.setAttribute("aria-busy", "false");
    this.growing.remove();
  }
}

// A text with its `code` as such.
function withCode(text) {
  return text.split(/(`[^`\n]+`)/).map((part) => (/^`[^`]+`$/.test(part) ? el("code", { text: part.slice(1, -1) }) : part));
}

function meter(share) {
  return el("span", { class: "read" }, el("meter", { min: 0, max: 1, value: share, "aria-label": "read" }), ` read ${percent(share)}`);
}

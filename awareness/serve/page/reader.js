// The code beside the answer: sources with the attention shown on their tokens, or any place of an indexed file.

import { get } from "./api.js";
import { $, counted, el, line, measurePaint, percent, shown } from "./dom.js";
import { Attention, LEVELS, drawLayers, palette } from "./heat.js";
import { problem, state } from "./state.js";

const AROUND = 8; // lines before and after a place
const NAMES = Array.from({ length: LEVELS + 1 }, (_, level) => (level ? `h${level}` : "")); // of classes
let sections = []; // of the sources that are shown: {place, node, code, tokens: [[span, index]]}
let attention = null;
let strip = null;
let asked = null;
let opener = null; // what had the focus before

// Closes the code. Returns whether it was open.
export function close() {
  const wasOpen = !$("reader").hidden;
  $("reader").hidden = true;
  asked?.abort();
  if (wasOpen && opener?.isConnected) opener.focus();
  return wasOpen;
}

export function redraw() {
  if (strip && attention) drawStrip();
}

function open(title, ...parts) {
  if ($("reader").hidden) opener = document.activeElement;
  $("reader").replaceChildren(
    el("div", { class: "reader-top" }, el("h2", { text: title }), el("button", { type: "button", "aria-label": "Close the code", text: "Close", on: { click: close } })),
    ...parts);
  $("reader").hidden = false;
}

// --- one place ---

// place: {path, start_line, end_line}
export async function openPlace(repository, place) {
  asked?.abort();
  attention = strip = null;
  const section = sectionOf(place, `${place.path}:${place.start_line}-${place.end_line}`);
  sections = [section];
  open("Code", section.node);
  await fill(section, repository, []);
  section.node.scrollIntoView({ block: "nearest" });
  section.node.focus();
}

// --- the sources of an answer ---

export function showAnswer(answer) {
  asked?.abort();
  asked = new AbortController();
  attention = strip = null;
  const controls = el("div", { class: "heat-controls" });
  sections = (answer.citations ?? []).map((place, i) => sectionOf(place, `[${i + 1}] ${place.path}:${place.start_line}-${place.end_line}`));
  const focused = document.activeElement;
  open("What was read", controls, ...sections.map((section) => section.node));
  focused?.focus();
  sections.forEach((section, i) => { section.answer = answer; section.number = i + 1; });
  if (sections.length && answer.id && answer.mode !== "text" && answer.mode !== "none") loadAttention(answer, controls, asked.signal);
}

async function loadAttention(answer, controls, signal) {
  controls.replaceChildren(el("p", { class: "hint", role: "status", text: "computing what each token looked at …" }));
  try {
    const began = performance.now();
    const got = await Attention.of(answer.id, signal);
    const came = performance.now();
    if (signal.aborted) return;
    attention = got;
    state.attention = got;
    buildControls(controls);
    sections.forEach((section, place) => buildTokens(section, place));
    paint();
    measurePaint("awareness-heat-draw", came);
    measurePaint("awareness-heat-all", began);
  } catch (error) {
    if (error.name === "AbortError") return;
    controls.replaceChildren(el("p", { class: "hint", role: "status", text: line(error.message) }));
  }
}

// Opens the file at the source's lines. number: from 1. lines: [first, last] that a sentence rests on.
export async function openSource(answer, number, lines = null) {
  if (sections[number - 1]?.answer !== answer || $("reader").hidden) showAnswer(answer);
  const section = sections[number - 1];
  if (!section) return;
  for (const other of sections) other.node.classList.toggle("open", other === section);
  await fill(section, answer.repository, lines ? [lines] : section.place.evidence ?? []);
  (section.node.querySelector(".evidence") ?? section.node).scrollIntoView({ block: "center" });
  section.node.focus({ preventScroll: true });
}

function sectionOf(place, title) {
  const code = el("div", { class: "code" });
  const share = place.attention === null || place.attention === undefined ? null : el("span", { class: "share", text: `read ${percent(place.attention)}` });
  const node = el("section", { class: "source", tabindex: "-1", "aria-label": line(title) }, el("h3", {}, el("span", { class: "path", text: line(title) }), share), code);
  const section = { place, node, code, tokens: [] };
  code.addEventListener("pointerover", (event) => explain(section, event));
  return section;
}

// --- the lines of a place ---

async function fill(section, repository, evidence) {
  const { path, start_line: start, end_line: end } = section.place;
  try {
    const file = await get("/file", { repository, path, origin: section.place.origin, start: Math.max(1, start - AROUND), end: end + AROUND });
    section.file = file;
    section.evidence = evidence;
    build(section);
    problem(null);
  } catch (error) {
    if (error.name !== "AbortError") { section.code.replaceChildren(el("p", { class: "hint", text: line(error.message) })); }
  }
}

function buildTokens(section, place) {
  const own = attention.chunks.find((chunk) => chunk.place === place);
  if (!own) return;
  section.own = own;
  build(section, { isColoured: false }); // all sections are coloured together
}

// The lines of the file around the source, and inside of it its tokens. Without the file the source alone.
function build(section, { isColoured = true } = {}) {
  const { file, own } = section;
  const { start_line: start, end_line: end } = section.place;
  const rows = [];
  section.tokens = [];
  const before = file ? file.lines.slice(0, Math.max(0, start - file.start)) : [];
  const after = file ? file.lines.slice(Math.max(0, end - file.start + 1)) : [];
  const inside = file ? file.lines.slice(Math.max(0, start - file.start), end - file.start + 1) : [];
  const text = own?.pieces.join("") ?? "";
  const isCurrent = !file || !own?.pieces.length || inside.join("\n") === text;
  before.forEach((row, i) => rows.push(plainRow(file.start + i, row, "around")));
  if (own?.pieces.length && isCurrent) rows.push(...tokenRows(section, own, start));
  else inside.forEach((row, i) => rows.push(plainRow(start + i, row, "")));
  after.forEach((row, i) => rows.push(plainRow(end + 1 + i, row, "around")));
  for (const row of rows) {
    const number = Number(row.dataset.line);
    if ((section.evidence ?? []).some(([first, last]) => first <= number && number <= last)) row.classList.add("evidence");
  }
  const parts = [el("pre", { class: "rows", tabindex: "0", "aria-label": line(section.place.path) }, ...rows)];
  if (!isCurrent) parts.unshift(el("p", { class: "hint", text: "These lines are shown as they are now; the attention belongs to what was encoded, which differs (long lines are shortened, files change)." }));
  if (own && !own.pieces.length) parts.unshift(el("p", { class: "hint", text: "The latent of this chunk has other tokens than its text, so nobody knows which token stands where." }));
  section.code.replaceChildren(...parts);
  if (attention && isColoured) colour(section, attention.levels);
}

function plainRow(number, text, kind) {
  return rowOf(number, kind, [document.createTextNode(shown(text))]);
}

function rowOf(number, kind, nodes) {
  const row = el("span", { class: `row-of-code ${kind}`.trim(), "data-line": number }, el("span", { class: "line-number", "aria-hidden": "true", "data-number": number }));
  row.append(...nodes, "\n");
  return row;
}

// A token that spans lines gets a part in each of them.
function tokenRows(section, own, start) {
  const rows = [];
  let nodes = [];
  own.pieces.forEach((piece, i) => {
    if (!piece) return;
    piece.split("\n").forEach((part, k) => {
      if (k > 0) { rows.push(rowOf(start + rows.length, "", nodes)); nodes = []; }
      if (!part) return;
      const span = document.createElement("span");
      span.textContent = shown(part);
      nodes.push(span);
      section.tokens.push([span, own.start + i]);
    });
  });
  rows.push(rowOf(start + rows.length, "", nodes));
  return rows;
}

// --- the attention on it ---

function paint() {
  const shades = attention.levels;
  for (const section of sections) colour(section, shades);
  drawMarks();
}

function colour(section, shades) {
  for (const [span, index] of section.tokens) span.className = NAMES[shades[index]];
}

// The weight of a token, when somebody points at it.
function explain(section, event) {
  const found = section.tokens.find(([span]) => span === event.target);
  if (found && attention) found[0].title = `attention ${attention.heat[found[1]].toPrecision(2)}`;
}

function buildControls(place) {
  const layer = el("select", { on: { change: choose } },
    el("option", { value: "", text: `retrieval layers (mean of ${attention.retrieval.length})` }),
    ...attention.layers.map((own) => el("option", { value: own, text: `layer ${own}${attention.retrieval.includes(own) ? " · retrieval" : ""}` })));
  const head = el("select", { on: { change: choose } },
    el("option", { value: "", text: "all heads (mean)" }),
    ...Array.from({ length: attention.heads }, (_, own) => el("option", { value: own, text: `head ${own}` })));
  const tokens = tokenList(choose);
  const canvas = el("canvas", { class: "strip", role: "img", "aria-label": `${counted(attention.layers.length, "layer")} down, ${counted(attention.size - attention.sink, "token")} of memory across` });
  const marks = el("div", { class: "strip-marks", "aria-hidden": "true" });
  const said = el("p", { class: "hint", role: "status" });
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    layer.value = attention.layers[Math.min(attention.layers.length - 1, Math.floor(((event.clientY - box.top) / box.height) * attention.layers.length))];
    choose();
  });
  strip = { canvas, marks };
  const scale = el("div", { class: "scale", "aria-hidden": "true" }, "low ", ...Array.from({ length: LEVELS }, (_, i) => el("span", { class: `h${i + 1}`, text: " " })), " high");
  place.replaceChildren(
    el("div", { class: "options" }, el("label", {}, "Layer ", layer), el("label", {}, "Head ", head), scale),
    el("p", { class: "label", id: "tokens-label", text: attention.total > attention.tokens.length ? `The first ${attention.tokens.length} of ${attention.total} tokens of the answer` : "Tokens of the answer: choose one to see what it looked at" }),
    tokens.node,
    el("div", { class: "strip-frame" }, canvas, marks),
    el("p", { class: "hint", text: "Each row is a layer, each column a token of the memory, left the source that was read first. A click chooses the layer." }),
    said);
  drawStrip();

  async function choose() {
    const value = (select) => (select.value === "" ? null : Number(select.value));
    try {
      const began = performance.now();
      if (!(await attention.choose(value(layer), value(head), tokens.chosen))) return;
      paint();
      measurePaint("awareness-heat-choice", began);
      const most = sharesOf(attention);
      said.textContent = most ? `most on source ${most.place + 1}, ${percent(most.share)} of what the memory got` : "";
    } catch (error) { problem(error); }
  }
}

// The chunk that got most of the chosen weights.
function sharesOf(of) {
  const sums = of.chunks.map((own) => ({ place: own.place, sum: own.pieces.reduce((sum, _, i) => sum + of.heat[own.start + i], 0) }));
  const total = sums.reduce((sum, own) => sum + own.sum, 0);
  if (!total) return null;
  const most = sums.reduce((best, own) => (own.sum > best.sum ? own : best));
  return { place: most.place, share: most.sum / total };
}

// The tokens of the answer as a list box: arrows choose one, Esc or Home none.
function tokenList(changed) {
  const list = { chosen: null };
  const options = attention.tokens.map((text, i) => el("span", { role: "option", id: `answer-token-${i}`, "aria-selected": "false", class: "answer-token", text: line(text) || "∅", on: { click: () => pick(i) } }));
  list.node = el("div", { role: "listbox", tabindex: "0", class: "answer-tokens", "aria-labelledby": "tokens-label", on: { keydown } }, ...options);

  function pick(i) {
    list.chosen = list.chosen === i ? null : i;
    options.forEach((option, k) => option.setAttribute("aria-selected", String(k === list.chosen)));
    if (list.chosen === null) list.node.removeAttribute("aria-activedescendant");
    else { list.node.setAttribute("aria-activedescendant", options[i].id); options[i].scrollIntoView({ block: "nearest" }); }
    changed();
  }

  function keydown(event) {
    const last = options.length - 1;
    const at = list.chosen;
    const next = { ArrowRight: at === null ? 0 : Math.min(last, at + 1), ArrowLeft: at === null ? last : Math.max(0, at - 1), End: last }[event.key];
    if (next !== undefined) { event.preventDefault(); if (next !== at) pick(next); }
    else if ((event.key === "Home" || event.key === "Escape") && at !== null) { event.preventDefault(); event.stopPropagation(); pick(at); }
  }
  return list;
}

function drawStrip() {
  drawLayers(strip.canvas, attention, palette());
  drawMarks();
}

// The numbers of the sources below the strip, and which row is chosen.
function drawMarks() {
  if (!strip) return;
  const width = attention.size - attention.sink;
  strip.marks.replaceChildren(...attention.chunks.map((own) => {
    const mark = el("span", { text: `${own.place + 1}` });
    mark.style.left = `${(100 * (own.start - attention.sink)) / width}%`;
    return mark;
  }));
  const row = attention.layers.indexOf(attention.chosen.layer);
  strip.canvas.dataset.row = row;
}

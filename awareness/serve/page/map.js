// The memory as a map: folders and files by size, and in each file the chunks that the last answer read.

import { get } from "./api.js";
import { $, bytes, counted, el, line, percent, table } from "./dom.js";
import { level, palette } from "./heat.js";
import * as reader from "./reader.js";
import { onChange, problem, state } from "./state.js";
import { neighbour, squarified } from "./treemap.js";

const HEIGHT = 440;
const TITLE = 14; // pixels for the name of a folder
const LISTED = 400; // rows of the table
let files = [];
let loadedFor = null;
let boxes = []; // of files
let folders = [];
let chosen = null;

export function begin() {
  const canvas = $("map");
  canvas.addEventListener("keydown", keydown);
  canvas.addEventListener("focus", () => { if (!chosen) chooseFirst(); });
  canvas.addEventListener("pointermove", (event) => { const box = under(event); if (box && box !== chosen) choose(box); });
  canvas.addEventListener("click", (event) => { const box = under(event); if (box) { choose(box); openChosen(); } });
  new ResizeObserver(redraw).observe(canvas.parentElement);
  onChange("repository", () => { loadedFor = null; chosen = null; files = []; if (!$("view-map").hidden) opened(); });
  onChange("answer", () => { if (!$("view-map").hidden) { redraw(); fillTable(); } });
}

export async function opened() {
  if (loadedFor !== state.repository) {
    try {
      const repository = state.repository;
      $("map-status").textContent = "loading …";
      redraw();
      $("map-table").replaceChildren();
      const got = await get("/memory-map", { repository });
      if (repository !== state.repository) return;
      files = got.files;
      loadedFor = repository;
      problem(null);
    } catch (error) { files = []; $("map-status").textContent = ""; problem(error); }
  }
  redraw();
  fillTable();
  say();
  if (!chosen && document.activeElement === $("map")) chooseFirst();
}

// path -> [{start, end, share}] of what the last answer read.
function read() {
  const parts = new Map();
  for (const place of state.answer?.citations ?? []) {
    if (!parts.has(place.path)) parts.set(place.path, []);
    parts.get(place.path).push({ start: place.start_line, end: place.end_line, share: place.attention ?? 0 });
  }
  return parts;
}

function say() {
  const lit = read();
  const chunks = files.reduce((sum, file) => sum + file.chunks.length, 0);
  $("map-status").textContent = `${counted(files.length, "file")}, ${counted(chunks, "chunk")}`
    + (lit.size ? `, ${counted([...lit.values()].flat().length, "chunk")} read by the last answer` : "");
}

function tree() {
  const root = { name: "", folders: new Map(), files: [] };
  for (const file of files) {
    let here = root;
    const parts = file.path.split("/");
    for (const part of parts.slice(0, -1)) {
      if (!here.folders.has(part)) here.folders.set(part, { name: part, folders: new Map(), files: [] });
      here = here.folders.get(part);
    }
    here.files.push({ file, name: parts.at(-1), weight: Math.max(1, file.bytes) });
  }
  return weighed(root);
}

function weighed(folder) {
  folder.children = [...[...folder.folders.values()].map(weighed), ...folder.files];
  folder.weight = folder.children.reduce((sum, child) => sum + child.weight, 0);
  return folder;
}

function lay(folder, x, y, width, height) {
  for (const box of squarified(folder.children, x, y, width, height)) {
    if (box.item.file) { boxes.push(box); continue; }
    folders.push(box);
    const titled = box.width > 40 && box.height > 30 ? TITLE : 0;
    lay(box.item, box.x + 2, box.y + titled + 1, box.width - 4, box.height - titled - 3);
  }
}

export function redraw() {
  const canvas = $("map");
  if ($("view-map").hidden || !canvas) return;
  const width = canvas.parentElement.clientWidth;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  canvas.style.height = `${HEIGHT}px`;
  const before = chosen?.item.file.path;
  boxes = [];
  folders = [];
  if (files.length) lay(tree(), 0, 0, width, HEIGHT);
  $("map-file").textContent = "";
  chosen = boxes.find((box) => box.item.file.path === before) ?? null;
  draw();
}

function draw() {
  const canvas = $("map");
  const ratio = devicePixelRatio || 1;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const shades = palette();
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = colour("--map-back");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "top";
  for (const box of folders) {
    context.strokeStyle = colour("--map-edge");
    context.strokeRect(box.x + 0.5, box.y + 0.5, Math.max(0, box.width - 1), Math.max(0, box.height - 1));
    if (box.width > 40 && box.height > 30) write(context, box.item.name, box.x + 3, box.y + 2, box.width - 6, colour("--dim"));
  }
  const lit = read();
  const top = Math.max(0, ...[...lit.values()].flat().map((part) => part.share));
  for (const box of boxes) {
    const { file } = box.item;
    const [x, y, width, height] = [box.x + 0.5, box.y + 0.5, Math.max(0.5, box.width - 1), Math.max(0.5, box.height - 1)];
    context.fillStyle = colour("--map-file");
    context.fillRect(x, y, width, height);
    const lines = Math.max(1, ...file.chunks.map((chunk) => chunk[1]));
    for (const part of lit.get(file.path) ?? []) { // a band for each chunk, where it stands in the file
      context.fillStyle = `rgb(${shades[Math.max(2, level(part.share, top))].join(",")})`;
      const from = y + (height * (part.start - 1)) / lines;
      context.fillRect(x, from, width, Math.max(3, Math.min((height * (part.end - part.start + 1)) / lines, y + height - from)));
    }
    if (width > 36 && height > 14) write(context, box.item.name, x + 3, y + 2, width - 6, colour("--text"));
  }
  if (chosen) {
    context.strokeStyle = colour("--focus");
    context.lineWidth = 3;
    context.strokeRect(chosen.x + 1, chosen.y + 1, Math.max(1, chosen.width - 2), Math.max(1, chosen.height - 2));
    context.lineWidth = 1;
  }
}

function write(context, text, x, y, width, colour) {
  context.fillStyle = colour;
  context.save();
  context.beginPath();
  context.rect(x, y, width, 14);
  context.clip();
  context.fillText(line(text), x, y);
  context.restore();
}

function under(event) {
  const place = $("map").getBoundingClientRect();
  const [x, y] = [event.clientX - place.left, event.clientY - place.top];
  return boxes.find((box) => x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height);
}

function choose(box) {
  chosen = box;
  const { file } = box.item;
  const share = (read().get(file.path) ?? []).reduce((sum, part) => sum + part.share, 0);
  $("map-file").textContent = line(`${file.path}: ${bytes(file.bytes)}, ${counted(file.chunks.length, "chunk")}${share ? `, read ${percent(share)}` : ""}`);
  draw();
}

// The file that the last answer read most, else the largest one.
function chooseFirst() {
  const lit = read();
  const share = (box) => (lit.get(box.item.file.path) ?? []).reduce((sum, part) => sum + part.share, 0);
  const first = boxes.reduce((best, box) => (best === null || share(box) > share(best) ? box : best), null);
  if (first) choose(first);
}

function openChosen() {
  if (chosen) openFile(chosen.item.file);
}

function openFile(file) {
  const parts = (read().get(file.path) ?? []).sort((a, b) => b.share - a.share);
  const [first, last] = file.chunks[0] ?? [1, 40];
  reader.openPlace(state.repository, { path: file.path, origin: file.origin, start_line: parts[0]?.start ?? first, end_line: parts[0]?.end ?? last });
}

function keydown(event) {
  if (event.key === "Enter") { event.preventDefault(); openChosen(); return; }
  if (!event.key.startsWith("Arrow") || !boxes.length) return;
  event.preventDefault();
  choose(chosen ? neighbour(boxes, chosen, event.key) ?? chosen : boxes[0]);
}

function fillTable() {
  const lit = read();
  const rows = files.map((file) => ({ file, share: (lit.get(file.path) ?? []).reduce((sum, part) => sum + part.share, 0) }))
    .sort((a, b) => b.share - a.share || b.file.bytes - a.file.bytes);
  const cells = rows.slice(0, LISTED).map(({ file, share }) => [
    el("button", { type: "button", class: "place", on: { click: () => openFile(file) } }, el("span", { class: "path", text: line(file.path) })),
    bytes(file.bytes), file.chunks.length, share ? percent(share) : "",
  ]);
  const caption = rows.length > LISTED ? `The first ${LISTED} of ${rows.length} files` : counted(rows.length, "file");
  $("map-table").replaceChildren(table(caption, ["File", "Size", "Chunks", "Read"], cells, [1, 2, 3]));
}

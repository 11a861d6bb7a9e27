// Captions for a video picture (OBS: a browser source), and never anything else: no state, no errors, no controls.
//
// The options in the address are those of overlay_options.js; /overlay-setup makes such an address. With `sample` the
// page plays that text instead of what the server hears.

import { setText } from "./dom.js";
import { Feed, options } from "./feed.js";
import { Layout } from "./overlay_layout.js";
import { read } from "./overlay_options.js";
import { play } from "./overlay_sample.js";

const chosen = read(options).values;
const box = document.getElementById("captions");

function applyLook() {
  const root = document.documentElement.style;
  root.setProperty("--size", `${chosen.size}px`);
  root.setProperty("--fade", `${chosen.fade}s`);
  for (const name of ["color", "background", "font"]) if (chosen[name]) root.setProperty(`--${name}`, chosen[name]);
  const bare = chosen.background === "none" || chosen.background === "transparent";
  if (bare) root.setProperty("--background", "transparent");
  const own = document.body.style; // over what stands in the style sheet for text without a background
  if (chosen.outline === "none") own.setProperty("--outline", "none");
  else if (chosen.outline || chosen.outlinesize > 0) own.setProperty("--outline", outline(chosen.outline || "#000"));
  document.body.classList.add(chosen.position, chosen.align);
  document.body.classList.toggle("bare", bare);
  document.body.classList.toggle("uppercase", chosen.uppercase);
}

/** A line around the letters, as shadows in sixteen directions: the stroke of text lies half within it in older OBS. */
function outline(color) {
  const width = chosen.outlinesize || Math.max(1, 0.06 * chosen.size);
  const shadows = [];
  for (let turn = 0; turn < 16; turn += 1) {
    const angle = (turn * Math.PI) / 8;
    shadows.push(`${(width * Math.cos(angle)).toFixed(2)}px ${(width * Math.sin(angle)).toFixed(2)}px 0 ${color}`);
  }
  return shadows.join(", ");
}

function draw(lines) {
  while (box.children.length > lines.length) box.firstChild.remove();
  while (box.children.length < lines.length) {
    const line = document.createElement("div");
    line.append(document.createElement("span"), document.createElement("span"));
    box.append(line);
  }
  lines.forEach((line, index) => {
    const element = box.children[index];
    const [committed, partial] = element.children;
    setText(committed, line.committed);
    setText(partial, line.partial);
    element.className = line.kind === "speech" ? "line" : `line ${line.kind}`;
    partial.className = "partial";
  });
}

function columnsThatFit() {
  const context = document.createElement("canvas").getContext("2d");
  const style = getComputedStyle(document.body);
  context.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  const capitals = chosen.uppercase ? context.measureText("ABCDEFGHIJKLMNOPQRSTUVWXYZ").width / 26 : 0;
  const column = Math.max(context.measureText("0").width, capitals) || chosen.size / 2;
  const room = innerWidth - 2 * Number.parseFloat(style.paddingLeft) - 0.7 * chosen.size;
  return Math.max(8, Math.min(chosen.chars, Math.floor(room / column)));
}

applyLook();
let layout = new Layout(columnsThatFit(), chosen.lines);
let current = null; // the newest transcript
let turn = null; // the timer of what happens next: the lines move up, or the text goes away

function fit() {
  const chars = columnsThatFit();
  document.documentElement.style.setProperty("--width", `calc(${chars}ch + 0.7em)`);
  if (chars === layout.chars) return;
  layout = new Layout(chars, chosen.lines);
  if (!current || box.children.length === 0) return;
  layout.transcript(current, performance.now(), chosen.partial);
  layout.settle();
  refresh();
}

/** Show what is to be shown now, and come again when the lines move up. `anew`: the text stays for `hold` from now on. */
function refresh(anew = true) {
  const now = performance.now();
  const { lines, nextMs } = layout.view(now);
  draw(lines);
  if (nextMs === null && !anew) return;
  box.classList.remove("going");
  clearTimeout(turn);
  turn = nextMs === null ? setTimeout(goAway, 1000 * chosen.hold) : setTimeout(refresh, Math.max(20, nextMs - now));
}

function goAway() {
  box.classList.add("going");
  turn = setTimeout(empty, 1000 * chosen.fade);
}

function empty() {
  clearTimeout(turn);
  layout.clear();
  draw([]);
  box.classList.remove("going");
}

/** Take an event in. */
function show(event) {
  const now = performance.now();
  if (event.type === "transcript") {
    const says = event.text || event.partial || event.unclear?.length > 0;
    if (says) current = event;
    layout.transcript(event, now, chosen.partial);
    if (!says) return refresh(false); // the partial was withdrawn
  } else if (event.type === "sound" && chosen.sounds && event.state === "start") layout.sound(event.label, now);
  else return;
  refresh();
}

function startAnew() {
  current = null;
  layout.forget();
  empty();
}

fit();
addEventListener("resize", fit);
if (options.has("sample")) play(options.get("sample"), show);
else {
  const on = { event: show, reset: startAnew };
  new Feed({ types: ["transcript", "sound"], session: chosen.session || null, on }).start();
}

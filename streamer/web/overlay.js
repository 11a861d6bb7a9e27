// Captions for a video picture (OBS: a browser source), and never anything else: no state, no errors, no controls.
//
// Options in the address: lines 1-4, chars 20-60, size (px), color, background, font, position top|middle|bottom,
// align left|center|right, partial 0|1, sounds 0|1, hold (seconds until the text goes away), uppercase 0|1, session, token.
//
// Committed words are laid out once, word by word: a line that is full stays as it is, so nothing that was read moves
// within its line. Only the partial tail behind them is laid out anew each time.

import { setText, UNCLEAR } from "./dom.js";
import { Feed, options } from "./feed.js";

const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

function whole(name, fallback, low, high) {
  const value = Number.parseInt(options.get(name), 10);
  return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : fallback;
}
function oneOf(name, choices) {
  return choices.includes(options.get(name)) ? options.get(name) : choices[0];
}
function flag(name, fallback) {
  const value = options.get(name);
  return value === null ? fallback : !["0", "false", "no", "off"].includes(value);
}

const maxLines = whole("lines", 2, 1, 4);
const wantedChars = whole("chars", 42, 20, 60);
const sizePx = whole("size", 40, 8, 400);
const holdMs = 1000 * whole("hold", 8, 1, 3600);
const showPartial = flag("partial", true);
const showSounds = flag("sounds", true);

const box = document.getElementById("captions");

function applyLook() {
  const root = document.documentElement.style;
  root.setProperty("--size", `${sizePx}px`);
  for (const [name, property] of [["color", "color"], ["background", "background-color"], ["font", "font-family"]]) {
    const value = options.get(name);
    const hex = /^[0-9a-f]{3,8}$/i.test(value ?? "") ? `#${value}` : value; // "#" in an address starts its fragment
    for (const candidate of [value, hex]) {
      if (candidate && CSS.supports(property, candidate)) {
        root.setProperty(`--${name}`, candidate);
        break;
      }
    }
  }
  const background = options.get("background");
  document.body.classList.add(oneOf("position", ["bottom", "top", "middle"]), oneOf("align", ["center", "left", "right"]));
  document.body.classList.toggle("bare", background === "none" || background === "transparent");
  if (background === "none") root.setProperty("--background", "transparent");
  document.body.classList.toggle("uppercase", flag("uppercase", false));
}

function widthOf(text) {
  let width = 0;
  for (const char of text) width += WIDE.test(char) ? 2 : 1;
  return width;
}

/** Lines of words; `chars` columns each. A line is {kind, committed, partial}. */
class Layout {
  constructor(chars) {
    this.chars = chars;
    this.lines = [];
    this.words = new Map(); // segment -> how many of its words were laid out
    this.segment = null;
    this.fresh = true; // the next word begins a line
  }

  /** One transcript: append the new committed words, then the partial tail to a copy. Returns the lines to show. */
  transcript(event) {
    const segment = `${event.session} ${event.segment}`;
    if (segment !== this.segment) {
      this.segment = segment;
      this.fresh = true;
      if (this.words.size > 16) this.words.delete(this.words.keys().next().value);
    }
    const words = split(event.text);
    const done = this.words.get(segment) ?? 0;
    for (const word of words.slice(done)) this.put(this.lines, word, "committed");
    this.words.set(segment, Math.max(done, words.length));
    if (event.final && event.unclear?.length > 0) this.unclear();
    const shown = this.lines.map((line) => ({ ...line }));
    if (showPartial && !event.final) {
      const fresh = this.fresh;
      for (const word of split(event.partial)) this.put(shown, word, "partial");
      this.fresh = fresh;
    }
    return this.trim(shown);
  }

  sound(label) {
    for (const word of split(`[${label}]`)) {
      this.put(this.lines, word, "committed", "sound");
    }
    this.fresh = true;
    return this.trim(this.lines.map((line) => ({ ...line })));
  }

  /** Behind the segment, once: how often somebody was not understood is nothing to read. */
  unclear() {
    this.fresh = true;
    if (this.lines.at(-1)?.kind !== "unclear") this.put(this.lines, { text: UNCLEAR, glued: false }, "committed", "unclear");
    this.fresh = true;
  }

  clear() {
    this.lines = [];
    this.fresh = true;
  }

  put(lines, word, part, kind = "speech") {
    for (const piece of this.cut(word)) {
      const last = lines.at(-1);
      const line = last && !this.fresh && last.kind === kind ? last : null;
      const text = line ? line.committed + line.partial : "";
      const gap = text && !word.glued ? " " : "";
      if (line && widthOf(text + gap + piece) <= this.chars) line[part] += gap + piece;
      else lines.push({ kind, committed: "", partial: "", [part]: piece });
      this.fresh = false;
    }
  }

  *cut(word) {
    let piece = "";
    for (const char of word.text) {
      if (widthOf(piece + char) > this.chars) {
        yield piece;
        piece = "";
      }
      piece += char;
    }
    yield piece;
  }

  trim(shown) {
    if (this.lines.length > 2 * maxLines) this.lines.splice(0, this.lines.length - 2 * maxLines);
    return shown.slice(-maxLines);
  }
}

/** Words; characters of scripts that are written without spaces are words of their own. */
function split(text) {
  const words = [];
  for (const word of text.split(/\s+/u).filter(Boolean)) {
    let start = 0;
    for (const part of word.match(/[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+/gu) ?? []) {
      words.push({ text: part, glued: start > 0 });
      start += part.length;
    }
  }
  return words;
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
  const column = context.measureText("0").width || sizePx / 2;
  const room = innerWidth - 2 * Number.parseFloat(style.paddingLeft) - 0.7 * sizePx;
  return Math.max(8, Math.min(wantedChars, Math.floor(room / column)));
}

applyLook();
let layout = new Layout(columnsThatFit());
let current = null;
let hold = null;

function fit() {
  const chars = columnsThatFit();
  document.documentElement.style.setProperty("--width", `calc(${chars}ch + 0.7em)`);
  if (chars === layout.chars) return;
  layout = new Layout(chars);
  if (current) draw(layout.transcript(current));
}

function keepFor(ms) {
  clearTimeout(hold);
  hold = setTimeout(() => {
    layout.clear();
    draw([]);
  }, ms);
}

function show(event) {
  if (event.type === "transcript" && (event.text || event.partial || event.unclear?.length > 0)) {
    current = event;
    draw(layout.transcript(event));
  } else if (event.type === "transcript") {
    draw(layout.transcript(event)); // the partial was withdrawn
    return;
  } else if (event.type === "sound" && showSounds && event.state === "start") draw(layout.sound(event.label));
  else return;
  keepFor(holdMs);
}

fit();
addEventListener("resize", fit);
new Feed({ types: ["transcript", "sound"], session: options.get("session") || null, on: { event: show } }).start();

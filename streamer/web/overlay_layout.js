// Words become lines, and lines get time to be read. Nothing here knows of the page or of a clock: times are given.
//
// Committed words are laid out once, word by word: a line that is full stays as it is, so nothing that was read moves
// in its line. Only the partial tail behind them is laid out anew each time. Where people speak, lines come about as
// fast as they are read; where a paragraph comes at once, its lines follow each other at READ_CHARS_S, quicker if the
// last of them would come more than BEHIND_MS late, and the first of it are left out where nobody could read so fast.

import { UNCLEAR } from "./dom.js";

const READ_CHARS_S = 25; // a little quicker than people speak, so that who only speaks is never held back
const BEHIND_MS = 4000;
const HURRY = 2; // so many times faster than READ_CHARS_S at most

const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

export function widthOf(text) {
  let width = 0;
  for (const char of text) width += WIDE.test(char) ? 2 : 1;
  return width;
}

/** Lines of words; `chars` columns each, `lines` of them in view. A line is {kind, committed, partial}. */
export class Layout {
  constructor(chars, lines) {
    this.chars = chars;
    this.maxLines = lines;
    this.words = new Map(); // segment -> how many of its words were laid out
    this.segment = null;
    this.clear();
  }

  /** One transcript: its new committed words, and its partial tail instead of the one before. */
  transcript(event, nowMs, showPartial) {
    const segment = `${event.session} ${event.segment}`;
    if (segment !== this.segment) {
      this.segment = segment;
      this.fresh = true;
      if (this.words.size > 16) this.words.delete(this.words.keys().next().value);
    }
    const words = split(event.text);
    const done = this.words.get(segment) ?? 0;
    for (const word of words.slice(done)) this.put(this.lines, word, "committed", "speech", nowMs);
    this.words.delete(segment); // the one that nothing came of for longest goes first
    this.words.set(segment, Math.max(done, words.length));
    if (event.final && event.unclear?.length > 0) this.unclear(nowMs);
    this.tail = showPartial && !event.final ? split(event.partial) : [];
  }

  sound(label, nowMs) {
    this.fresh = true;
    for (const word of split(`[${label}]`)) this.put(this.lines, word, "committed", "sound", nowMs);
    this.fresh = true;
  }

  /** Behind the segment, once: how often somebody was not understood is nothing to read. */
  unclear(nowMs) {
    this.fresh = true;
    const mark = { text: UNCLEAR, glued: false };
    if (this.lines.at(-1)?.kind !== "unclear") this.put(this.lines, mark, "committed", "unclear", nowMs);
    this.fresh = true;
  }

  /** Nothing is in view; what was laid out of the open segments does not come again. */
  clear() {
    this.lines = [];
    this.tail = [];
    this.top = 0; // the first line in view
    this.movedMs = Number.NEGATIVE_INFINITY;
    this.fresh = true; // the next word begins a line
  }

  /** Another run of the server numbers its segments anew. */
  forget() {
    this.clear();
    this.words.clear();
    this.segment = null;
  }

  /** All that is there has been read. */
  settle() {
    this.top = Number.POSITIVE_INFINITY;
  }

  /** The lines in view now, and when they move up next (null: they do not). */
  view(nowMs) {
    const shown = this.lines.map((line) => ({ ...line }));
    const fresh = this.fresh;
    for (const word of this.tail) this.put(shown, word, "partial", "speech", nowMs);
    this.fresh = fresh;
    const end = Math.max(0, shown.length - this.maxLines);
    this.top = Math.min(this.top, end);
    this.leaveOut();
    let dueMs = null;
    while (this.top < end) {
      dueMs = this.dueMs(nowMs);
      if (nowMs < dueMs) break;
      this.top += 1;
      this.movedMs = nowMs;
      dueMs = null;
    }
    for (const line of this.lines.slice(this.top, this.top + this.maxLines)) line.seenMs ??= nowMs;
    const inView = shown.slice(this.top, this.top + this.maxLines);
    this.trim();
    return { lines: inView, nextMs: dueMs };
  }

  /** When the first line in view has been read; what is partial need not be. */
  dueMs(nowMs) {
    const first = this.lines[this.top];
    if (first === undefined) return nowMs;
    const beganMs = Math.max(first.seenMs ?? nowMs, this.movedMs);
    const next = this.lines[this.top + this.maxLines];
    if (next === undefined) return beganMs + readMs(first);
    const leftMs = Math.max(0, BEHIND_MS - (nowMs - next.cameMs));
    return beganMs + readMs(first) * Math.min(1, leftMs / this.unreadMs());
  }

  /** How long it takes to read what has to go before the last line is in view. */
  unreadMs() {
    const go = this.lines.slice(this.top, Math.max(this.top, this.lines.length - this.maxLines));
    return go.reduce((sum, line) => sum + readMs(line), 0);
  }

  leaveOut() {
    while (this.unreadMs() > HURRY * BEHIND_MS) this.top += 1;
  }

  trim() {
    const gone = Math.min(this.top, this.lines.length) - 2 * this.maxLines;
    if (gone <= 0) return;
    this.lines.splice(0, gone);
    this.top -= gone;
  }

  put(lines, word, part, kind, nowMs) {
    for (const piece of this.cut(word)) {
      const last = lines.at(-1);
      const line = last && !this.fresh && last.kind === kind ? last : null;
      const text = line ? line.committed + line.partial : "";
      const gap = text && !word.glued ? " " : "";
      if (line && widthOf(text + gap + piece) <= this.chars) line[part] += gap + piece;
      else lines.push({ kind, committed: "", partial: "", cameMs: nowMs, seenMs: null, [part]: piece });
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
}

const readMs = (line) => (1000 * (line.committed.length + line.partial.length)) / READ_CHARS_S;

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

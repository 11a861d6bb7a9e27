// A text as nodes: plain, unsure words shaded, words to mark and what is searched for highlighted.

import { element } from "./dom.js";

const UNSURE = 0.5; // a word's probability below this

/** words: [first character, behind the last, probability]. */
export function runs(text, words, { unsure, keywords, query }) {
  const marks = [];
  if (unsure) for (const [from, to, probability] of words) if (probability < UNSURE) marks.push([from, to, "unsure"]);
  for (const keyword of keywords) marks.push(...places(text, keyword, true, "keyword"));
  if (query) marks.push(...places(text, query, false, "hit"));
  if (marks.length === 0) return [document.createTextNode(text)];
  const edges = [...new Set([0, text.length, ...marks.flatMap(([from, to]) => [from, to])])].sort((one, other) => one - other);
  return edges.slice(0, -1).map((from, index) => {
    const part = text.slice(from, edges[index + 1]);
    const names = marks.filter(([first, last]) => first <= from && from < last).map((mark) => mark[2]);
    if (names.length === 0) return document.createTextNode(part);
    return element(names.every((name) => name === "unsure") ? "span" : "mark", [...new Set(names)].join(" "), part);
  });
}

/** Where words stand in a text; whole: not as a part of another word. */
function* places(text, words, whole, name) {
  const [lower, wanted] = [text.toLocaleLowerCase(), words.toLocaleLowerCase()];
  if (lower.length !== text.length) return; // letters that change their length: no place would be right
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, at + wanted.length)) {
    const inWord = /[\p{L}\p{N}]/u.test(text.slice(Math.max(0, at - 1), at)) || /^[\p{L}\p{N}]/u.test(text.slice(at + wanted.length));
    if (!whole || !inWord) yield [at, at + wanted.length, name];
  }
}

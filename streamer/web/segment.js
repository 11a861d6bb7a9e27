// One segment of speech, cut where sounds came while it was spoken, so that all stand in the order of their time.

export class Segment {
  /** sounds: starts of what was heard lately, in seconds. */
  constructor(start, sounds) {
    this.start = start;
    this.cuts = sounds.filter((at) => at > start).sort((one, other) => one - other);
    this.lines = new Map(); // where a piece begins -> what shows it
    this.event = null;
  }

  /** A sound began: whether it lies in this segment. */
  cut(at) {
    const lies = at > this.start && (!this.event.final || at < this.event.end) && !this.cuts.includes(at);
    if (lies) this.cuts = [...this.cuts, at].sort((one, other) => one - other);
    return lies;
  }

  /**
   * The pieces that hold something: `from` (seconds), `text`, `words` ([first character, behind the last, probability]),
   * `partial`. What may still change stands behind the last sound.
   */
  pieces() {
    const { text, partial, words, final } = this.event;
    const bounds = [this.start, ...this.cuts];
    const pieces = bounds.map((from) => ({ from, text: "", words: [], partial: "", first: null, end: 0 }));
    let [at, index] = [0, 0];
    for (const word of words) {
      const begin = text.indexOf(word.word, at);
      if (begin < 0) continue;
      at = begin + word.word.length;
      const mark = !/[\p{L}\p{N}]/u.test(word.word); // a mark behind a word stays with it
      while (!mark && index + 1 < bounds.length && word.start >= bounds[index + 1]) index += 1;
      const piece = pieces[index];
      piece.first ??= begin;
      piece.end = at;
      piece.words.push([begin - piece.first, at - piece.first, word.probability]);
    }
    for (const piece of pieces) if (piece.first !== null) piece.text = text.slice(piece.first, piece.end);
    const last = pieces.findLast((piece) => piece.first !== null) ?? pieces[0];
    const rest = last.first === null ? text : text.slice(last.end); // without times, or behind the last word
    last.text += rest;
    if (!final) pieces.at(-1).partial = partial;
    return pieces.filter((piece) => piece.text.trim() || piece.partial.trim());
  }
}

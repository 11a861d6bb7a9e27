// The captions: one column in the order of time. The line of what is being said grows in its place and stays there.

import { UNCLEAR, byId, clock, element, joined, setText } from "./dom.js";
import { Segment } from "./segment.js";
import { runs } from "./runs.js";

const MAX_LINES = 3000; // of a page that is open all day; the server has them all
const MAX_LOADED = 20_000; // when somebody asked for what came earlier
const MORE_WHILE_READ = 1.2; // times as many while somebody reads further up
const NEWEST_KEPT = 200; // lines, also while somebody reads far above them
const NEAR_END_PX = 60;
const RECENT = 24; // sounds and segments of a session that may still come to stand between each other
const MAX_ANNOUNCED = 3;
const SAID_S = 10; // what was said longer ago was not said meanwhile
const MAX_SAID = 300; // characters

/** A line: `key` orders it, `start` is in seconds of its session. `missing`: so many lines that it stands for. */
class Line {
  constructor(key, session, start, kind = "") {
    Object.assign(this, { key, session, start, kind, text: "", partial: "", words: [], missing: 0 });
    this.node = element("p", kind);
    this.time = element("time");
    this.who = element("span", "who");
    this.said = element("span", "said");
    this.node.append(...(kind === "note" ? [this.said] : [this.time, this.who, this.said]));
  }
}

export class Captions {
  /** openedAt: session -> Unix time of its beginning, where that is known. */
  constructor(openedAt) {
    this.openedAt = openedAt;
    this.log = byId("captions");
    this.place = byId("lines");
    this.lines = []; // by key
    this.segments = new Map(); // "session number" -> Segment
    this.recent = new Map(); // session -> {sounds: starts in seconds, segments}
    this.sessions = new Set(); // with captions, of this run of the server
    this.latest = new Map(); // session -> its newest transcript
    this.look = { times: "session", unsure: false, keywords: [], query: "" };
    this.follow = true;
    this.top = 0; // where it was scrolled to
    this.paused = false;
    this.unread = 0;
    this.quiet = true; // nothing is read out: the replay is there to be read
    this.maxLines = MAX_LINES;
    this.floor = 0; // keys of this run of the server are not below
    this.log.addEventListener("scroll", () => this.scrolled());
    byId("latest").addEventListener("click", () => this.backToNow());
    addEventListener("resize", () => this.scroll());
  }

  transcript(event) {
    this.meet(event.session);
    const newest = this.latest.get(event.session);
    if (!newest || newest.seq < event.seq) this.latest.set(event.session, event);
    const segment = this.segment(event);
    this.draw(segment, event);
    if (!event.final) return;
    for (const span of event.unclear ?? []) this.write(event.session, span.start, UNCLEAR, "unclear");
    if (event.text.trim()) this.announce(event);
  }

  segment(event) {
    const name = `${event.session} ${event.segment}`;
    let segment = this.segments.get(name);
    if (!segment) {
      const recent = this.recentOf(event.session);
      segment = new Segment(event.start, recent.sounds);
      this.segments.set(name, segment);
      recent.segments.push(segment);
      if (recent.segments.length > RECENT) recent.segments.shift();
    }
    return segment;
  }

  /** A segment's pieces: mostly one line, another one behind each sound that came while it was spoken. */
  draw(segment, event) {
    segment.event = event;
    const kept = new Set();
    for (const piece of segment.pieces()) {
      kept.add(piece.from);
      let line = segment.lines.get(piece.from);
      if (!line) {
        line = new Line(this.key(event.session, piece.from), event.session, Math.max(piece.from, event.start));
        segment.lines.set(piece.from, line);
        this.insert(line);
      }
      Object.assign(line, { text: piece.text, partial: piece.partial, words: piece.words });
      this.fill(line);
    }
    for (const [from, line] of segment.lines) {
      if (kept.has(from)) continue;
      segment.lines.delete(from);
      this.remove(line);
    }
    this.scroll();
  }

  heard(event) {
    this.meet(event.session);
    const recent = this.recentOf(event.session);
    recent.sounds.push(event.start);
    if (recent.sounds.length > RECENT) recent.sounds.shift();
    this.write(event.session, event.start, `[${event.label}]`, "heard");
    for (const segment of recent.segments) {
      if (segment.cut(event.start)) this.draw(segment, segment.event);
    }
  }

  /** A remark. Without a time it stands where the column ends now. */
  note(text, session = null, start = null) {
    const key = start === null ? (this.lines.at(-1)?.key ?? 0) : this.key(session, start);
    const line = new Line(key, session, start, "note");
    line.text = text;
    this.insert(line);
    this.fill(line);
    this.scroll();
  }

  write(session, start, text, kind) {
    const line = new Line(this.key(session, start), session, start, kind);
    line.text = text;
    this.insert(line);
    this.fill(line);
    this.scroll();
  }

  key(session, start) {
    const opened = this.openedAt.get(session);
    return opened === undefined ? this.floor + start : Math.max(this.floor, opened + start);
  }

  insert(line) {
    let [low, high] = [0, this.lines.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lines[middle].key <= line.key) low = middle + 1;
      else high = middle;
    }
    this.place.insertBefore(line.node, this.lines[low]?.node ?? null);
    this.lines.splice(low, 0, line);
    if (!this.follow) this.unread += 1;
    if (this.lines.length > (this.follow ? 1 : MORE_WHILE_READ) * this.maxLines) this.bound();
  }

  remove(line) {
    line.node.remove();
    const index = this.lines.indexOf(line);
    if (index >= 0) this.lines.splice(index, 1);
  }

  /** What goes can be had again. While somebody reads, nothing does that is in sight, or a screen above or below. */
  bound() {
    const excess = this.lines.length - Math.floor(0.9 * this.maxLines);
    if (this.follow) {
      this.drop(0, excess);
      this.top = 0; // what is there moves up, and nobody did that
    } else {
      this.inPlace(() => {
        const { top, bottom, height } = this.log.getBoundingClientRect();
        const [first, behind] = [this.firstBelow(top - height), this.firstBelow(bottom + height)];
        const above = Math.min(excess, first);
        const below = Math.min(excess - above, this.lines.length - NEWEST_KEPT - behind);
        if (below > 0) this.leaveOut(behind, below);
        this.drop(0, above);
      });
    }
    byId("earlier").hidden = false;
  }

  drop(from, count) {
    const gone = new Set(this.lines.splice(from, count));
    for (const line of gone) line.node.remove();
    for (const [name, segment] of this.segments) {
      for (const [at, line] of segment.lines) if (gone.has(line)) segment.lines.delete(at);
      if (segment.event.final && segment.lines.size === 0) this.segments.delete(name);
    }
    // a sound that is told late cuts no segment that went
    for (const recent of this.recent.values()) recent.segments = recent.segments.filter((segment) => !segment.event.final || segment.lines.size > 0);
  }

  /** Drop lines in the middle, between what is read and what is said now, and say so in their place. */
  leaveOut(from, count) {
    const missing = this.lines.slice(from, from + count).reduce((sum, line) => sum + (line.missing || 1), 0);
    this.drop(from, count);
    const line = new Line(this.lines[from - 1]?.key ?? 0, null, null, "note");
    Object.assign(line, { missing, text: `${missing} lines are left out here, so that the page stays quick.` });
    const button = element("button", "", "Show them");
    button.type = "button";
    button.addEventListener("click", () => byId("earlier").click());
    line.node.append(" ", button);
    this.place.insertBefore(line.node, this.lines[from]?.node ?? null);
    this.lines.splice(from, 0, line);
    this.fill(line);
  }

  /** Change the column without moving what somebody reads. */
  inPlace(change) {
    const seen = this.lines[this.firstBelow(this.log.getBoundingClientRect().top)]?.node;
    const before = seen?.getBoundingClientRect().top;
    change();
    if (seen?.isConnected) this.log.scrollTop += seen.getBoundingClientRect().top - before;
    this.top = this.log.scrollTop;
  }

  /** The first line that reaches below a height of the window. */
  firstBelow(height) {
    let [low, high] = [0, this.lines.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lines[middle].node.getBoundingClientRect().bottom > height) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  fill(line) {
    const who = this.sessions.size > 1 && line.session !== null ? shortName(line.session) : "";
    setText(line.time, this.timeOf(line));
    setText(line.who, who);
    line.said.replaceChildren(...(line.kind === "note" ? [line.text] : runs(line.text, line.words, this.look)));
    if (line.partial) line.said.append(element("span", "partial", joined(line.text, line.partial)));
    byId("empty").hidden = true;
  }

  timeOf({ session, start }) {
    if (start === null || this.look.times === "none") return "";
    const opened = this.openedAt.get(session);
    if (this.look.times === "session" || opened === undefined) return clock(start);
    return new Date(1000 * (opened + start)).toLocaleTimeString();
  }

  /** Show all lines in another way. */
  restyle(look) {
    Object.assign(this.look, look);
    for (const line of this.lines) this.fill(line);
    this.scroll();
  }

  /** Whoever speaks is named as soon as there are two. */
  meet(session) {
    if (this.sessions.has(session)) return;
    this.sessions.add(session);
    if (this.sessions.size === 2) for (const line of this.lines) this.fill(line);
  }

  recentOf(session) {
    if (!this.recent.has(session)) this.recent.set(session, { sounds: [], segments: [] });
    return this.recent.get(session);
  }

  announce(event) {
    if (this.quiet) return;
    const place = byId("announced");
    place.append(element("p", "", event.text));
    while (place.children.length > MAX_ANNOUNCED) place.firstChild.remove();
  }

  /** What was being said in a session at the time of an event. */
  said(event) {
    const last = this.latest.get(event.session);
    return last && event.audio_t - last.audio_t <= SAID_S ? `${last.text} ${last.partial}`.trim().slice(-MAX_SAID) : "";
  }

  /** Lines whose text holds the words, from the oldest to the newest. */
  find(query) {
    this.restyle({ query });
    const wanted = query.toLocaleLowerCase();
    return wanted ? this.lines.filter((line) => line.kind !== "note" && line.text.toLocaleLowerCase().includes(wanted)) : [];
  }

  /** Bring a line to the middle and stay there. */
  show(line) {
    for (const other of this.place.querySelectorAll(".at")) other.classList.remove("at");
    line.node.classList.add("at");
    this.follow = false;
    line.node.scrollIntoView({ block: "center" });
    this.drawLatest();
  }

  /** Everything that is finished goes; what is being said stays. */
  clear() {
    const open = new Set([...this.segments.values()].filter((item) => !item.event.final).flatMap((item) => [...item.lines.values()]));
    for (const line of this.lines) if (!open.has(line)) line.node.remove();
    this.lines = this.lines.filter((line) => open.has(line));
    for (const [name, segment] of this.segments) if (segment.event.final) this.segments.delete(name);
    // a sound that is told late cuts no segment that went
    for (const recent of this.recent.values()) recent.segments = recent.segments.filter((segment) => !segment.event.final);
    this.backToNow();
  }

  /** The server was started anew: what was stays to be read, and nothing grows there any more. */
  newRun() {
    for (const segment of this.segments.values()) {
      if (!segment.event.final) this.draw(segment, { ...segment.event, partial: "", final: true });
    }
    for (const line of this.lines) if (line.missing) line.node.querySelector("button").remove(); // nobody has them now
    this.floor = this.lines.at(-1)?.key ?? 0;
    this.segments.clear();
    this.recent.clear();
    this.latest.clear();
    this.sessions.clear();
  }

  /** Take in what the server still has. */
  load(events) {
    this.maxLines = MAX_LOADED;
    const { follow, recent, quiet } = this;
    this.follow = false;
    this.quiet = true; // it was asked for to be read
    this.recent = new Map(); // what is spoken now keeps its own
    const shown = new Set(this.lines.filter((line) => line.kind === "heard").map((line) => `${line.session} ${line.start}`));
    this.inPlace(() => {
      for (const line of this.lines.filter((one) => one.missing)) this.remove(line);
      for (const event of events) {
        if (event.type === "transcript") this.fillIn(event);
        else if (event.type === "sound" && event.state === "start" && !shown.has(`${event.session} ${event.start}`)) this.heard(event);
      }
    });
    this.unread = 0;
    Object.assign(this, { follow, recent, quiet });
    this.scroll();
  }

  /** Draw a segment, or what is missing of it. */
  fillIn(event) {
    const known = this.segments.get(`${event.session} ${event.segment}`);
    if (!known) this.transcript(event);
    else if (known.event.final && known.pieces().length > known.lines.size) this.draw(known, known.event);
  }

  pause(on) {
    this.paused = on;
    if (on) {
      this.follow = false;
      this.drawLatest();
    } else this.backToNow();
  }

  backToNow() {
    this.follow = true;
    this.paused = false;
    byId("pause").setAttribute("aria-pressed", "false");
    setText(byId("pause"), "Pause");
    if (document.activeElement === byId("latest")) this.log.focus(); // the button goes
    this.scroll();
  }

  /** Only who scrolls up leaves the end: that the column grew meanwhile is no reason. */
  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    const up = scrollTop < this.top - 1;
    this.top = scrollTop;
    if (this.paused) return;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END_PX) this.follow = true;
    else if (up) this.follow = false;
    this.drawLatest();
  }

  /** Once for all events that are at hand: asking how high the column is makes the browser lay it out. */
  scroll() {
    this.scrolling ??= requestAnimationFrame(() => {
      this.scrolling = null;
      if (this.follow) this.log.scrollTop = this.log.scrollHeight;
      this.drawLatest();
    });
  }

  drawLatest() {
    if (this.follow) this.unread = 0;
    byId("latest").hidden = this.follow;
    setText(byId("latest"), this.unread > 0 ? `Back to now (${this.unread} new)` : "Back to now");
  }
}

/** A session's name for people: without the time of its beginning. */
export const shortName = (session) => session.replace(/-\d{8}T\d{6}$/, "");

// The timeline: every sound and every alert, the newest first: when, what, how long, how sure, what was heard and said.

import { SEVERITIES, byId, capitalised, clock, element, percent, setText, title } from "./dom.js";

const STRIP_S = 600;
const MAX_ENTRIES = 400;
const MAX_HEARD = 5;

export class Timeline {
  /** marks, teaching: see marks.js, teaching.js. wallTime(session, seconds): a Date, or null where nobody knows. */
  constructor(marks, teaching, wallTime) {
    this.marks = marks;
    this.teaching = teaching;
    this.wallTime = wallTime;
    this.known = new Map(); // "alert|sound session id" -> item
    this.now = new Map(); // session -> seconds
  }

  at(session, seconds) {
    this.now.set(session, Math.max(seconds, this.now.get(session) ?? 0));
    if (this.known.size > 0 && Math.floor(seconds) !== this.drawnAt) {
      this.drawnAt = Math.floor(seconds);
      this.drawStrip();
      this.drawTeaching();
    }
  }

  alert(event) {
    const item = this.item("alert", event);
    item.acknowledged ||= event.state === "acknowledged";
    item.score = Math.max(item.score, event.score);
    if (item.heard.length === 0) item.heard = event.heard ?? []; // what made it ring, not what sounds at its end
    item.said ||= event.text ?? "";
    item.event = event;
    this.draw(item);
    this.drawStrip();
  }

  /** heard: the tags then; said: what was being said then. */
  sound(event, heard, said) {
    const item = this.item("sound", event);
    item.score = Math.max(item.score, event.score);
    if (item.heard.length === 0 && event.state === "start") item.heard = heard;
    item.said ||= event.state === "start" ? said : "";
    item.event = event;
    this.draw(item);
    this.drawStrip();
  }

  /** Draw an alert's marks again; null: all. */
  marked(alert) {
    for (const item of this.known.values()) {
      const mine = alert === null || (item.event.session === alert.session && item.event.id === alert.id);
      if (item.kind === "alert" && mine) this.drawMark(item);
    }
  }

  /** The server was started anew: what was stays to be read, and cannot be marked any more. */
  clear() {
    for (const item of this.known.values()) {
      if (item.event.end === null) setText(item.facts, "not known how long: the server was started anew");
      item.mark?.remove();
      item.teach.remove();
    }
    this.known.clear();
    this.now.clear();
    byId("strip").hidden = true;
  }

  item(kind, event) {
    const key = `${kind} ${event.session} ${event.id}`;
    let item = this.known.get(key);
    if (!item) {
      item = { key, kind, event, score: 0, heard: [], said: "", acknowledged: false, ...this.entry(kind) };
      this.known.set(key, item);
      byId("timeline").prepend(item.row);
      byId("no-timeline").hidden = true;
      this.forgetOldest();
    }
    return item;
  }

  entry(kind) {
    const row = element("li", kind);
    const [head, time, what, badge] = [element("p", "head"), element("time"), element("strong"), element("span", "badge")];
    const [facts, heard, said] = [element("p", "facts"), element("p"), element("p")];
    head.append(time, what, badge);
    const [teach, teachButton] = [element("p", "teach"), element("button", "", "That was …")];
    teachButton.type = "button";
    teach.append(teachButton);
    row.append(head, facts, heard, said);
    const parts = { row, time, what, badge, facts, heardLine: heard, saidLine: said, teach, teachButton };
    if (kind === "sound") return parts;
    const mark = element("p", "mark");
    const [state, button, trouble] = [element("span"), element("button"), element("span", "trouble")];
    button.type = "button";
    mark.append(state, button, trouble);
    row.append(mark);
    return { ...parts, mark, state, button, trouble };
  }

  draw(item) {
    const { event, kind } = item;
    setText(item.time, clock(event.start));
    setText(item.what, kind === "alert" ? title(event) : capitalised(event.label));
    setText(item.badge, kind === "alert" ? (SEVERITIES[event.severity] ?? "Notice") : "sound");
    setText(item.facts, this.facts(item).join(" · "));
    const heard = item.heard.slice(0, MAX_HEARD).map((tag) => `${tag.label} ${percent(tag.score)}`);
    setText(item.heardLine, heard.length > 0 ? `Heard: ${heard.join("; ")}` : "");
    setText(item.saidLine, item.said ? `Said meanwhile: “${item.said}”` : "");
    this.drawTeach(item);
    if (kind === "sound") return;
    item.row.className = `alert-entry ${event.severity in SEVERITIES ? event.severity : "info"}`;
    this.drawMark(item);
  }

  facts({ event, kind, score, acknowledged }) {
    const facts = [];
    const when = this.wallTime(event.session, event.start);
    if (when) facts.push(`at ${when.toLocaleTimeString()}`);
    facts.push(event.end === null ? "still on" : `lasted ${duration(event.end - event.start)}`);
    facts.push(`score ${percent(score)}`);
    if (kind === "alert") {
      if (event.source === "demo" || event.source === "file") facts.push(`from a ${event.source}`);
      const labels = event.labels ?? [];
      if (labels.at(-1) === "withdrawn") facts.push("taken back");
      if (acknowledged) facts.push("acknowledged");
      const reasons = labels.filter((label) => label !== "withdrawn");
      if (reasons.length > 0) facts.push(`raised by ${reasons.join("; ")}`);
    }
    return facts;
  }

  drawMark(item) {
    const { event, button, state, trouble } = item;
    const now = this.marks.of(event);
    const which = `${title(event)} at ${clock(event.start)}`;
    const isFalse = now === "false";
    item.row.classList.toggle("false-alarm", isFalse);
    setText(state, { false: "Marked as a false alarm", true: "Marked as a true alert", storing: "Storing …", none: "" }[now]);
    setText(button, isFalse ? "Undo" : "False alarm");
    button.setAttribute("aria-label", isFalse ? `Undo: ${which} was no false alarm` : `False alarm: ${which}`);
    button.setAttribute("aria-disabled", String(now === "storing"));
    button.hidden = !this.marks.can(event);
    button.onclick = () => this.marks.mark(event, !isFalse);
    setText(trouble, this.marks.trouble(event));
    if (item.shown === "storing" && now !== "storing") {
      setText(byId("said"), trouble.textContent || `${which}: ${state.textContent || "mark taken back"}`);
    }
    item.shown = now;
  }

  /** What sounded a moment ago can still be given a name. */
  drawTeach({ event, kind, row, teach, teachButton }) {
    if (!this.teaching.can(event.start, this.now.get(event.session) ?? event.start)) {
      teach.remove();
      return;
    }
    if (!teach.isConnected) row.append(teach);
    const which = `at ${clock(event.start)}, ${kind === "alert" ? title(event) : event.label}`;
    teachButton.setAttribute("aria-label", `That was … (${which})`);
    teachButton.onclick = () => this.teaching.begin(event.session, event.start, which);
  }

  drawTeaching() {
    for (const item of this.known.values()) this.drawTeach(item);
  }

  /** Once for all events that are at hand. */
  drawStrip() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.drawBars();
    });
  }

  drawBars() {
    const bars = byId("bars");
    const now = Math.max(...this.now.values(), 1);
    const from = Math.max(0, now - STRIP_S);
    const place = (seconds) => 100 * Math.min(1, Math.max(0, (seconds - from) / (now - from)));
    const shown = [...this.known.values()].filter(({ event }) => (event.end ?? now) > from);
    while (bars.children.length > shown.length) bars.lastChild.remove();
    while (bars.children.length < shown.length) bars.append(element("div"));
    shown.forEach(({ event, kind }, index) => {
      const bar = bars.children[index];
      bar.className = kind === "sound" ? "sound" : event.severity;
      bar.style.setProperty("left", `${place(event.start)}%`);
      bar.style.setProperty("width", `${place(event.end ?? now) - place(event.start)}%`);
    });
    byId("strip").hidden = this.known.size === 0;
    setText(byId("strip-from"), clock(from));
  }

  /** Sounds go first, then alerts, the oldest of each; what still lasts stays. */
  forgetOldest() {
    const list = byId("timeline");
    for (const kind of ["sound", "alert"]) {
      for (const item of this.known.values()) {
        if (list.children.length <= MAX_ENTRIES) return;
        if (item.kind !== kind || item.event.end === null) continue;
        item.row.remove();
        this.known.delete(item.key);
      }
    }
    while (list.children.length > MAX_ENTRIES) list.lastChild.remove();
  }
}

function duration(seconds) {
  if (seconds < 0.95) return "less than 1 s";
  const whole = Math.round(seconds);
  return whole < 100 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}

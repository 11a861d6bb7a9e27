// "That was my doorbell": sounds that people teach, by whoever may. The server keeps the seconds around the moment.

import { byId, element, percent, setText } from "./dom.js";

const PATIENCE_MS = 8000;
const IN_MEMORY_S = 40; // so long ago a sound may have begun: the server has the last 45 s in memory
const STORED = "streamer taught"; // names, in this browser, to choose from
const MAX_NAMES = 20;

export class Teaching {
  /**
   * send(message): false when there is no connection. only: the session that this page shows, null: all. changed():
   * whether anything can be taught here.
   */
  constructor(send, only, changed) {
    this.send = send;
    this.only = only;
    this.changed = changed;
    this.able = false;
    this.live = new Set(); // sessions that are heard
    this.moment = null; // what is asked about: {session, start} or {session, pressedAt}
    this.last = null; // {name, clip} of what can be taken back
    this.asked = null; // "keep" or "undo", while the server has not answered
    this.timer = null;
    byId("teach-begin").addEventListener("click", () => this.begin());
    byId("teach-cancel").addEventListener("click", () => this.close());
    byId("teach-undo").addEventListener("click", () => this.undo());
    byId("teach").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation(); // it closes this form, not a panel
      this.close();
    });
    byId("teach").addEventListener("submit", (event) => {
      event.preventDefault();
      this.keep(byId("teach-name").value.trim());
    });
    this.offerNames(this.names());
  }

  hello(message) {
    this.able = (message.capabilities ?? []).includes("teach");
    for (const item of message.sessions ?? []) if (item.active !== false) this.live.add(item.session);
    byId("teach-begin").hidden = !this.able;
    if (!this.able) this.close();
    this.changed();
  }

  heard(session, stopped) {
    if (stopped) this.live.delete(session);
    else this.live.add(session);
  }

  /** Whether what began then, in seconds of its session, can still be kept. */
  can(start, now) {
    return this.able && now - start < IN_MEMORY_S;
  }

  /** Ask what the sound of a moment was; without one, that of just now. */
  begin(session = null, start = null, what = "just now") {
    const one = session ?? this.only ?? (this.live.size === 1 ? [...this.live][0] : null);
    if (one === null && this.live.size > 1) {
      this.say("Choose one session first (Settings, Show): several are heard here.");
      return;
    }
    this.moment = start === null ? { session: one, pressedAt: performance.now() } : { session: one, start };
    setText(byId("teach-moment"), `What sounded ${what}?`);
    byId("teach").hidden = false;
    byId("teach-name").focus();
  }

  keep(name) {
    if (!name || this.moment === null) return;
    const { session, start, pressedAt } = this.moment;
    const when = start === undefined ? { ago: Math.round(performance.now() - pressedAt) / 1000 } : { start };
    this.tell("keep", name, { ...(session === null ? {} : { session }), ...when }, "Keeping it …");
    this.close();
  }

  undo() {
    if (this.last === null || this.asked !== null) return;
    const { name, clip } = this.last;
    this.tell("undo", name, { undo: true, ...(clip === null ? {} : { clip }) }, "Taking it back …");
  }

  tell(what, name, fields, saying) {
    if (!this.send({ type: "teach", name, ...fields })) {
      this.say("Nothing was done: there is no connection.");
      return;
    }
    this.asked = what;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.end("The server did not answer (yet)."), PATIENCE_MS);
    this.say(saying);
  }

  /** The server's word on a sound: kept, taken back, learned, or why it cannot be learned. */
  take(message) {
    const undone = this.asked === "undo";
    this.end(this.sentence(message, undone));
    this.last = message.clips > 0 ? { name: message.name, clip: message.unlike ?? null } : null;
    byId("teach-undo").hidden = this.last === null || (undone && !message.trouble);
    setText(byId("teach-undo"), this.last?.clip ? `Take back clip ${this.last.clip}` : "Take back the last clip");
    if (!undone) this.remember(message.name);
  }

  sentence({ name, clips, needed, learned, learning, trouble, recall }, undone) {
    const kept = `${clips} clip${clips === 1 ? "" : "s"} of “${name}”`;
    if (trouble) return `“${name}” is not learned ${learned ? "anew" : "yet"}: ${trouble}`;
    if (learning) return `${undone ? "Taken back" : "Kept"}: ${kept}. Learning it, which may take a minute …`;
    if (typeof recall === "number") return `Learned from ${kept}, and listened for from now on. It recognised ${percent(recall)} of each clip that was left out.`;
    const until = clips < needed ? ` ${needed} are needed: press again when it sounds again.` : "";
    return `${undone ? "Taken back. Kept" : "Kept"}: ${kept}.${until}${learned ? " It is listened for as it was learned." : ""}`;
  }

  /** An error of the server: whether it is about this. */
  refused(detail) {
    if (!detail.startsWith("teach: ") && (this.asked === null || !/^(name|session|start|ago|clip)\b/.test(detail))) return false;
    this.end(`Nothing was done: ${detail.replace(/^teach: /, "")}`);
    return true;
  }

  end(text) {
    clearTimeout(this.timer);
    this.asked = null;
    this.say(text);
  }

  close() {
    if (byId("teach").contains(document.activeElement)) byId("teach-begin").focus();
    byId("teach").hidden = true;
    this.moment = null;
  }

  /** The server was started anew. */
  clear() {
    this.live.clear();
    this.last = null;
    byId("teach-undo").hidden = true;
    this.close();
    this.end("");
  }

  say(text) {
    setText(byId("teach-said"), text);
  }

  names() {
    try {
      const found = JSON.parse(localStorage.getItem(STORED)) ?? [];
      return Array.isArray(found) ? found.filter((name) => typeof name === "string") : [];
    } catch {
      return []; // private windows may have no storage
    }
  }

  remember(name) {
    const names = [name, ...this.names().filter((other) => other !== name)].slice(0, MAX_NAMES);
    try {
      localStorage.setItem(STORED, JSON.stringify(names));
    } catch {
      // as above
    }
    this.offerNames(names);
  }

  offerNames(names) {
    byId("teach-names").replaceChildren(...names.map((name) => {
      const item = element("option");
      item.value = name;
      return item;
    }));
  }
}

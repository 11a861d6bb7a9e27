// What sounds now, and the tags of the last second.

import { byId, element, percent, setText } from "./dom.js";

const SILENCE_DBFS = -70; // below the noise of any room and microphone
const LEVEL_FRESH_MS = 2000;

/** What sounds now, and the tags of the last second. */
export class Sounds {
  constructor() {
    this.lasting = new Map();
    this.latest = new Map(); // session -> its newest tags
    this.levels = new Map(); // session -> {dbfs, at}
    this.headless = false; // no session has a tagging head
    this.over = false; // all that were heard have stopped
  }

  hello(sessions) {
    this.headless = sessions.length > 0 && sessions.every((item) => item.head === null);
    this.drawTags();
  }

  sound(event) {
    const key = `${event.session} ${event.id}`;
    if (event.state === "end") this.lasting.delete(key);
    else this.lasting.set(key, event.label);
    this.draw();
  }

  draw() {
    byId("sounds").replaceChildren(...[...this.lasting.values()].map((label) => element("li", "", `[${label}]`)));
    byId("no-sounds").hidden = this.lasting.size > 0;
  }

  tags(event) {
    this.latest.set(event.session, event);
    this.over = false;
    this.drawTags();
  }

  level(message) {
    this.levels.set(message.session, { dbfs: message.dbfs, at: performance.now() });
    this.drawNoTags();
  }

  /** The newest tags of a session. */
  heard(session) {
    return this.latest.get(session)?.tags ?? [];
  }

  /** Of the sessions that are heard, in dBFS. */
  loudest() {
    const fresh = performance.now() - LEVEL_FRESH_MS;
    return Math.max(...[...this.levels.values()].filter((level) => level.at > fresh).map((level) => level.dbfs));
  }

  stopped(session) {
    this.latest.delete(session);
    this.over = this.latest.size === 0;
    this.drawTags();
  }

  drawTags() {
    const several = this.latest.size > 1;
    const rows = [...this.latest.values()].flatMap((event) => event.tags.map((tag) => ({ tag, session: event.session })));
    const list = byId("tags");
    while (list.children.length > rows.length) list.lastChild.remove();
    rows.forEach(({ tag, session }, index) => {
      let row = list.children[index];
      if (!row) {
        row = element("li");
        row.append(element("div", "bar"), element("span"), element("span"));
        list.append(row);
      }
      const [bar, label, score] = row.children;
      bar.style.setProperty("width", `${Math.round(100 * Math.min(1, tag.score))}%`);
      setText(label, several ? `${tag.label} (${session})` : tag.label);
      setText(score, percent(tag.score));
    });
    this.drawNoTags();
  }

  /** Nothing has a name: that is silence only where the loudness says so. */
  drawNoTags() {
    const fresh = performance.now() - LEVEL_FRESH_MS;
    const silent = (session) => {
      const level = this.levels.get(session);
      return level !== undefined && level.at > fresh && level.dbfs <= SILENCE_DBFS;
    };
    const sessions = [...this.latest.keys()];
    let text = this.over ? "Nothing any more: it has stopped" : "Nothing yet";
    if (this.headless) text = "This model has no tagging head: it names no sounds";
    if (sessions.length > 0) text = sessions.every(silent) ? "Silence" : "Quiet, or nothing that it has a name for";
    setText(byId("no-tags"), text);
    byId("no-tags").hidden = byId("tags").children.length > 0;
  }

  clear() {
    this.lasting.clear();
    this.latest.clear();
    this.levels.clear();
    this.over = false;
    this.draw();
    this.drawTags();
  }
}

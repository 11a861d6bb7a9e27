// The viewer: captions, sounds, tags, alerts. All text from outside goes in as textContent, never as markup.

import { byId, clock, element, percent, setText, UNCLEAR } from "./dom.js";
import { Feed, options } from "./feed.js";
import { Alerts } from "./alerts.js";
import { Condition } from "./condition.js";
import { Marks } from "./marks.js";
import { Timeline } from "./timeline.js";

const MAX_CAPTIONS = 400;
const BACKLOG = 3000; // events
const NEAR_END_PX = 60;
const SILENCE_DBFS = -70; // below the noise of any room and microphone
const SAID_S = 10; // what was said longer ago was not said meanwhile
const MAX_SAID = 300; // characters
const LEVEL_FRESH_MS = 2000;
const SETTLED_MS = 1500; // so long the replay takes, which no screen reader should read out

/** Finished segments, sounds and remarks scroll; what is being said stands below, one line per session. */
class Captions {
  constructor() {
    this.log = byId("captions");
    this.now = byId("now");
    this.lines = new Map(); // session -> element
    this.sessions = new Set();
    this.latest = new Map(); // session -> its newest transcript
    this.follow = true;
    this.log.addEventListener("scroll", () => {
      this.follow = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END_PX;
      byId("latest").hidden = this.follow;
    });
    byId("latest").addEventListener("click", () => {
      this.follow = true;
      this.scroll();
      this.log.focus();
    });
    addEventListener("resize", () => this.scroll());
  }

  transcript(event) {
    this.sessions.add(event.session);
    this.latest.set(event.session, event);
    if (!event.final) {
      this.speaking(event);
      return;
    }
    this.lines.get(event.session)?.remove();
    this.lines.delete(event.session);
    if (event.text.trim()) this.write(event.session, event.start, event.text);
    for (const span of event.unclear ?? []) this.write(event.session, span.start, UNCLEAR, "unclear");
  }

  write(session, seconds, text, kind) {
    const line = element("p", kind);
    line.append(element("time", "", clock(seconds)), ...this.who(session), element("span", "", text));
    this.add(line);
  }

  speaking(event) {
    let line = this.lines.get(event.session);
    if (!line) {
      line = element("p");
      line.append(...this.who(event.session), element("span", "committed"), element("span", "partial"));
      this.lines.set(event.session, line);
      this.now.append(line);
    }
    const gap = event.text && event.partial && !/^\s/.test(event.partial) ? " " : "";
    line.querySelector(".committed").textContent = event.text;
    line.querySelector(".partial").textContent = gap + event.partial;
  }

  who(session) {
    return this.sessions.size > 1 ? [element("span", "who", session)] : [];
  }

  heard(event) {
    const line = element("p", "heard");
    line.append(element("time", "", clock(event.start)), element("span", "", `[${event.label}]`));
    this.add(line);
  }

  note(text) {
    this.add(element("p", "note", text));
  }

  add(line) {
    this.log.append(line);
    while (this.log.children.length > MAX_CAPTIONS) this.log.firstChild.remove();
    this.scroll();
  }

  /** What was being said in a session at the time of an event. */
  said(event) {
    const last = this.latest.get(event.session);
    return last && event.audio_t - last.audio_t <= SAID_S ? `${last.text} ${last.partial}`.trim().slice(-MAX_SAID) : "";
  }

  stopSpeaking() {
    this.now.replaceChildren();
    this.lines.clear();
  }

  scroll() {
    if (this.follow) this.log.scrollTop = this.log.scrollHeight;
  }
}

/** What sounds now, and the tags of the last second. */
class Sounds {
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

function remembered(id, apply) {
  const input = byId(id);
  const property = input.type === "checkbox" ? "checked" : "value";
  try {
    const saved = JSON.parse(localStorage.getItem(`streamer ${id}`));
    if (saved !== null) input[property] = saved;
  } catch {
    // private windows may have no storage: then nothing is remembered
  }
  input.addEventListener("change", () => {
    try {
      localStorage.setItem(`streamer ${id}`, JSON.stringify(input[property]));
    } catch {
      // as above
    }
    apply(input[property]);
  });
  apply(input[property]);
}

function dress() {
  const light = matchMedia("(prefers-color-scheme: light)");
  const theme = () => {
    const chosen = byId("theme").value;
    document.documentElement.dataset.theme = chosen === "auto" ? (light.matches ? "light" : "dark") : chosen;
  };
  light.addEventListener("change", theme);
  remembered("theme", theme);
  remembered("size", (size) => {
    document.documentElement.dataset.size = size;
    captions.scroll();
  });
}

const captions = new Captions();
const sounds = new Sounds();
const condition = new Condition(options.get("session") || null);
const openedAt = new Map(); // session -> Unix time of its beginning, where it is heard as it happens
const feed = new Feed({
  types: ["status", "transcript", "tags", "sound", "alert", "gap", "level", "marks"],
  session: options.get("session") || null,
  backlog: BACKLOG,
  complete: ["status", "sound", "alert"],
  on: {
    hello,
    event: take,
    missed,
    state: connected,
    reset,
    heartbeat: (message) => condition.heartbeat(message),
    level,
    marks: (message) => marks.take(message),
    error: (message) => marks.refused(message.detail),
  },
});
const marks = new Marks((message) => feed.send(message), (alert) => {
  alerts.marked(alert);
  timeline.marked(alert);
});
const alerts = new Alerts((alert) => feed.send({ type: "ack", id: alert.id, session: alert.session }), marks);
const timeline = new Timeline(marks, (session, seconds) => {
  const opened = openedAt.get(session);
  return opened === undefined ? null : new Date(1000 * (opened + seconds));
});

function hello(message) {
  const sessions = message.sessions ?? [];
  for (const item of sessions) {
    if (typeof item.opened_at === "number") openedAt.set(item.session, item.opened_at);
  }
  sounds.hello(sessions);
  marks.able((message.capabilities ?? []).includes("mark"));
}

function connected(state, detail) {
  condition.connected(state, detail);
  if (state === "live") setTimeout(() => captions.log.removeAttribute("aria-live"), SETTLED_MS);
  else captions.log.setAttribute("aria-live", "off"); // the backlog is there to be read, not to be read out
}

function take(event, early) {
  alerts.at(event.session, event.audio_t);
  timeline.at(event.session, event.audio_t);
  if (event.type === "transcript") captions.transcript(event);
  else if (event.type === "tags") sounds.tags(event);
  else if (event.type === "alert") {
    alerts.take(event);
    timeline.alert(event);
  } else if (event.type === "status") {
    condition.session(event);
    if (event.state === "stopped") sounds.stopped(event.session);
  } else if (event.type === "sound") {
    sounds.sound(event);
    timeline.sound(event, sounds.heard(event.session), captions.said(event));
    if (event.state === "start" && !early) captions.heard(event);
  } else if (event.type === "gap") {
    captions.note(`${(event.end - event.start).toFixed(1)} s of sound was lost at ${clock(event.start)}: ${event.reason}`);
  }
}

function missed(gap) {
  captions.note(`${gap.count} events were missed here: the server no longer has them. Captions may be incomplete.`);
}

function reset() {
  captions.stopSpeaking();
  captions.note("The server was started anew.");
  sounds.clear();
  alerts.clear();
  timeline.clear();
  marks.clear();
  condition.clear();
}

function level(message) {
  sounds.level(message);
  byId("level").hidden = false;
  byId("meter").value = Math.max(-60, sounds.loudest());
}

dress();
remembered("timeline-sounds", (on) => byId("timeline").classList.toggle("alerts-only", !on));
remembered("sound", (on) => alerts.useSound(on));
if (!("vibrate" in navigator)) byId("vibration-label").hidden = true;
remembered("vibration", (on) => alerts.useVibration(on));
feed.start();

// The viewer: captions, sounds, tags, alerts. All text from outside goes in as textContent, never as markup.

import { Feed, options } from "./feed.js";
import { Alerts } from "./alerts.js";

const MAX_CAPTIONS = 400;
const BACKLOG = 3000; // events
const NO_AUDIO_S = 15;
const FAR_BEHIND_S = 10;
const NEAR_END_PX = 60;

const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${pad(whole % 60)}` : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

/** Finished segments, sounds and remarks scroll; what is being said stands below, one line per session. */
class Captions {
  constructor() {
    this.log = byId("captions");
    this.now = byId("now");
    this.lines = new Map(); // session -> element
    this.sessions = new Set();
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
    if (!event.final) {
      this.speaking(event);
      return;
    }
    this.lines.get(event.session)?.remove();
    this.lines.delete(event.session);
    if (!event.text.trim()) return;
    const line = element("p");
    line.append(element("time", "", clock(event.start)), ...this.who(event.session), element("span", "", event.text));
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
    const list = byId("tags");
    while (list.children.length > event.tags.length) list.lastChild.remove();
    event.tags.forEach((tag, index) => {
      let row = list.children[index];
      if (!row) {
        row = element("li");
        row.append(element("div", "bar"), element("span"), element("span"));
        list.append(row);
      }
      const [bar, label, score] = row.children;
      bar.style.setProperty("width", `${Math.round(100 * Math.min(1, tag.score))}%`);
      label.textContent = tag.label;
      score.textContent = `${Math.round(100 * tag.score)} %`;
    });
    byId("no-tags").textContent = "Silence";
    byId("no-tags").hidden = event.tags.length > 0;
  }

  clear() {
    this.lasting.clear();
    this.draw();
    byId("tags").replaceChildren();
  }
}

/** Whether somebody listens: the connection, the heartbeats and what the sessions say of themselves. */
class Condition {
  constructor() {
    this.connection = "connecting";
    this.detail = "";
    this.status = new Map(); // session -> its last status event
    this.deaf = false;
    this.lag = 0; // seconds
  }

  connected(state, detail) {
    this.connection = state;
    this.detail = detail;
    this.draw();
  }

  session(event) {
    this.status.set(event.session, event);
    this.draw();
  }

  heartbeat(message) {
    const sessions = message.sessions ?? [];
    this.deaf = sessions.length > 0 && sessions.every((item) => item.last_audio_age > NO_AUDIO_S);
    this.lag = Math.max(0, ...sessions.map((item) => item.lag));
    byId("lag").textContent = sessions.length ? `${this.lag.toFixed(1)} s behind` : "";
    this.draw();
  }

  draw() {
    const [state, short, ...long] = this.judge();
    byId("state").dataset.state = state;
    setText(byId("state"), short);
    if (byId("trouble").textContent !== long.join("")) {
      byId("trouble").replaceChildren(...long.map((text) => element("p", "", text)));
    }
  }

  judge() {
    if (this.connection === "silent") {
      return ["silent", "Not listening", "Not listening", "No sign of life from Streamer: no captions, and no alert would be shown here. Trying to reconnect."];
    }
    if (this.connection === "refused") {
      return ["refused", "Refused", "Not listening", `The server refused this page: ${this.detail || "not allowed"}. Open the address with its token.`];
    }
    if (this.connection === "connecting") return ["connecting", "Connecting …"];
    const states = [...this.status.values()];
    if (states.length > 0 && states.every((item) => item.state === "stopped")) return ["trouble", "Stopped"];
    if (this.deaf || states.some((item) => item.state === "no_audio")) {
      return ["silent", "No sound arrives", "No sound arrives", "Streamer runs, but its microphone delivers nothing: no captions, no alerts."];
    }
    const poor = states.find((item) => item.state === "degraded");
    if (this.lag > FAR_BEHIND_S) return ["trouble", `${Math.round(this.lag)} s behind`];
    if (poor) return ["trouble", `Degraded${poor.detail ? `: ${poor.detail}` : ""}`];
    return ["live", "Listening"];
  }

  clear() {
    this.status.clear();
    this.deaf = false;
  }
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
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
const condition = new Condition();
const feed = new Feed({
  types: ["status", "transcript", "tags", "sound", "alert", "gap", "level"],
  session: options.get("session") || null,
  backlog: BACKLOG,
  on: { event: take, missed, state: (state, detail) => condition.connected(state, detail), reset, heartbeat, level },
});
const alerts = new Alerts((alert) => feed.send({ type: "ack", id: alert.id, session: alert.session }), clock);

function take(event) {
  alerts.at(event.session, event.audio_t);
  if (event.type === "transcript") captions.transcript(event);
  else if (event.type === "tags") sounds.tags(event);
  else if (event.type === "alert") alerts.take(event);
  else if (event.type === "status") condition.session(event);
  else if (event.type === "sound") {
    sounds.sound(event);
    if (event.state === "start") captions.heard(event);
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
  condition.clear();
}

function heartbeat(message) {
  condition.heartbeat(message);
}

function level(message) {
  byId("level").hidden = false;
  byId("meter").value = Math.max(-60, message.dbfs);
}

dress();
remembered("sound", (on) => alerts.useSound(on));
if (!("vibrate" in navigator)) byId("vibration-label").hidden = true;
remembered("vibration", (on) => alerts.useVibration(on));
feed.start();

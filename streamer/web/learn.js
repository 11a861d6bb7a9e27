// "That was my doorbell": teaches the program a sound of one's own, from what just sounded or from an event.

import { byId, capitalised, clock, setText, title } from "./dom.js";

const JUST_NOW_S = 6;
const KEPT_S = 40; // the server keeps a little more
const LONGEST_S = 20;
const MAX_EVENTS = 8;

export class Learn {
  /** send(message): to the server, false when there is no connection. */
  constructor(send) {
    this.send = send;
    this.events = new Map(); // key -> event, the newest last
    this.now = new Map(); // session -> seconds
    this.waiting = false;
    byId("learn").addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      this.teach(byId("learn-name").value.trim(), this.events.get(byId("learn-when").value));
    });
  }

  able(possible, sessions) {
    byId("learn").hidden = !possible;
    this.session = sessions.filter((item) => item.active !== false).length === 1 ? undefined : sessions[0]?.session;
    this.draw();
  }

  at(session, seconds) {
    this.now.set(session, seconds);
  }

  /** A sound or an alert, which people may point at. */
  heard(event) {
    const key = `${event.type} ${event.session} ${event.id}`;
    const known = this.events.has(key);
    this.events.set(key, event);
    for (const old of this.events.keys()) {
      if (this.events.size > MAX_EVENTS) this.events.delete(old);
    }
    if (!known) this.draw();
  }

  draw() {
    const select = byId("learn-when");
    const chosen = select.value;
    const options = [new Option(`the last ${JUST_NOW_S} seconds`, "")];
    for (const [key, event] of [...this.events].reverse()) {
      options.push(new Option(`${event.type === "alert" ? title(event) : capitalised(event.label)} at ${clock(event.start)}`, key));
    }
    select.replaceChildren(...options);
    select.value = this.events.has(chosen) ? chosen : "";
  }

  teach(name, event) {
    if (!name) return;
    const message = { type: "learn", name };
    if (event) {
      const now = this.now.get(event.session) ?? event.start;
      if (now - event.start > KEPT_S) return this.say("That sound is not kept any more.");
      const end = Math.min(event.end ?? now, event.start + LONGEST_S);
      Object.assign(message, { session: event.session, start: event.start, end: Math.max(end, event.start + 0.5) });
    } else {
      Object.assign(message, { seconds: JUST_NOW_S }, this.session ? { session: this.session } : {});
    }
    this.waiting = this.send(message);
    this.say(this.waiting ? "Sent …" : "Not sent: there is no connection");
  }

  /** The server's answer. What became of it comes as a `status`. */
  take({ name, clips, needed }) {
    this.waiting = false;
    const more = needed - clips;
    this.say(more > 0 ? `${name}: taken; ${more} more needed, each time it sounds` : `${name}: taken; it is being learned`);
  }

  refused(detail) {
    if (this.waiting) this.say(`Not learned: ${detail.replace(/^learn: /, "")}`);
    this.waiting = false;
  }

  say(text) {
    setText(byId("learn-said"), text);
  }
}

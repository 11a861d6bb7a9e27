// Whether somebody listens, said plainly.

import { address } from "./client.js";
import { byId, element, setText } from "./dom.js";
import { shortName } from "./captions.js";

const STOPPED = "Stopped";
const WAITING = "Waiting for a sender";
const NO_AUDIO_S = 15;
const FAR_BEHIND_S = 10;
const NOTHING_COMES = {
  microphone: "Streamer runs, but its microphone delivers nothing: no captions, no alerts.",
  input: "Streamer runs, but nothing comes from its input: no captions, no alerts.",
  sender: "Streamer runs, but its sender sends nothing: no captions, no alerts.",
};

/** Whether somebody listens: the connection, the heartbeats and what the sessions say of themselves. */
export class Condition {
  /** only: the one session that is shown; null: all. */
  constructor(only) {
    this.only = only;
    this.connection = "connecting";
    this.detail = "";
    this.status = new Map(); // session -> its last status event
    this.sources = new Map(); // session -> "microphone", "input" or "sender", as the server says
    this.toy = false; // the bundled model, with which nobody should rely on alerts
    this.deaf = []; // sessions that no sound came from for a while
    this.lag = null; // seconds, once a heartbeat came
  }

  connected(state, detail) {
    this.connection = state;
    this.detail = detail;
    this.draw();
  }

  hello(sessions) {
    for (const item of sessions) this.sources.set(item.session, item.source ?? "microphone");
    this.toy = sessions.some((item) => item.model === "nano");
    this.draw();
  }

  session(event) {
    this.status.set(event.session, event);
    this.draw();
  }

  heartbeat(message) {
    const sessions = (message.sessions ?? []).filter((item) => this.only === null || item.session === this.only);
    this.deaf = sessions.filter((item) => item.last_audio_age > NO_AUDIO_S).map((item) => item.session);
    this.lag = Math.max(0, ...sessions.map((item) => item.lag));
    this.draw();
  }

  draw() {
    const [state, short, ...long] = this.judge();
    document.body.classList.toggle("idle", short === STOPPED || short === WAITING); // then the level says nothing
    byId("state").dataset.state = state;
    setText(byId("state"), short);
    // beside another state, which may have a number of its own and from another moment, it would contradict it
    setText(byId("lag"), state === "live" && this.lag !== null ? `${this.lag.toFixed(1)} s behind` : "");
    if (byId("trouble").textContent !== long.join("")) {
      byId("trouble").replaceChildren(...long.map((text) => element("p", "", text)));
    }
    setText(byId("empty"), this.empty(state));
  }

  judge() {
    if (this.connection === "silent") {
      return ["silent", "Not listening", "Not listening", "No sign of life from Streamer: no captions, and no alert would be shown here. Trying to reconnect."];
    }
    if (this.connection === "refused") {
      return ["refused", "Refused", "Not listening", `The server refused this page: ${this.detail || "not allowed"}. Open the link that Streamer printed, or the address with its token.`];
    }
    if (this.connection === "connecting") return ["connecting", "Connecting …"];
    const states = [...this.status.values()].filter((item) => item.state !== "stopped");
    if (states.length === 0 && this.sendersOnly()) return ["connecting", WAITING];
    if (this.status.size > 0 && states.length === 0) {
      return ["trouble", STOPPED, "Not listening", "What Streamer listened to has ended: no captions and no alerts any more."];
    }
    const mute = this.mute(states);
    if (states.length > 0 && states.every((item) => item.state === "starting")) {
      return ["connecting", `Starting${states[0].detail ? `: ${states[0].detail}` : ""}`];
    }
    if (mute.length > 0 && mute.length < states.length) {
      const which = `No sound arrives from ${mute.map(shortName).join(", ")}`;
      return ["silent", "No sound from all", which, "No captions and no alerts from there; the others are heard."];
    }
    if (mute.length > 0) {
      return ["silent", "No sound arrives", "No sound arrives", NOTHING_COMES[this.source(mute[0])]];
    }
    if (states.length === 0) return ["connecting", "Connected"];
    const poor = states.find((item) => item.state === "degraded");
    if (this.lag > FAR_BEHIND_S) return ["trouble", `${Math.round(this.lag)} s behind`];
    if (poor) return ["trouble", `Degraded${poor.detail ? `: ${poor.detail}` : ""}`];
    return ["live", "Listening"];
  }

  /** What stands where there are no captions: what is missing, and how to begin. */
  empty(state) {
    if (state === "silent" || state === "refused" || this.connection !== "live") return "";
    const states = [...this.status.values()].map((item) => item.state);
    if (states.length === 0 && !this.sendersOnly()) return "";
    if (this.sendersOnly() && states.every((one) => one === "stopped")) {
      return `Waiting for a sender on /ingest: Streamer listens to no microphone of its own. Open the page ${new URL("mic", location.href).pathname} on the device that hears, or send sound to ${address(location.href, "ingest").href}; or start Streamer with --device.`;
    }
    if (states.every((one) => one === "stopped")) return "It has ended, and nothing was said that could be written down.";
    if (states.every((one) => one === "starting")) return "Captions come as soon as it listens.";
    const toy = this.toy ? " This is the bundled model nano, for trying out: it understands digits and a few words, and misses most alarms. With a connection, “streamer pull base” brings a better one." : "";
    return `Nothing was said yet. What is said appears here word by word, and sounds in [brackets].${toy}`;
  }

  /** What a session listens to; one that opened after `hello` is a sender's. */
  source(session) {
    return this.sources.get(session) ?? "sender";
  }

  sendersOnly() {
    const known = new Set([...this.sources.keys(), ...this.status.keys()]);
    return [...known].filter((name) => this.only === null || name === this.only).every((name) => this.source(name) === "sender");
  }

  /** Names of sessions that should be heard and are not. */
  mute(states) {
    const over = (name) => this.status.get(name)?.state === "stopped";
    const said = states.filter((item) => item.state === "no_audio").map((item) => item.session);
    return [...new Set([...said, ...this.deaf.filter((name) => !over(name))])];
  }

  clear() {
    this.status.clear();
    this.sources.clear();
    this.deaf = [];
    this.lag = null;
  }
}

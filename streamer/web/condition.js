// Whether somebody listens, said plainly.

import { byId, element, setText } from "./dom.js";

const STOPPED = "Stopped";
const NO_AUDIO_S = 15;
const FAR_BEHIND_S = 10;

/** Whether somebody listens: the connection, the heartbeats and what the sessions say of themselves. */
export class Condition {
  /** only: the one session that is shown; null: all. */
  constructor(only) {
    this.only = only;
    this.connection = "connecting";
    this.detail = "";
    this.status = new Map(); // session -> its last status event
    this.deaf = []; // sessions that no sound came from for a while
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
    const sessions = (message.sessions ?? []).filter((item) => this.only === null || item.session === this.only);
    this.deaf = sessions.filter((item) => item.last_audio_age > NO_AUDIO_S).map((item) => item.session);
    this.lag = Math.max(0, ...sessions.map((item) => item.lag));
    byId("lag").textContent = sessions.length ? `${this.lag.toFixed(1)} s behind` : "";
    this.draw();
  }

  draw() {
    const [state, short, ...long] = this.judge();
    document.body.classList.toggle("idle", short === STOPPED); // then level and lag say nothing
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
      return ["refused", "Refused", "Not listening", `The server refused this page: ${this.detail || "not allowed"}. Open the link that Streamer printed, or the address with its token.`];
    }
    if (this.connection === "connecting") return ["connecting", "Connecting …"];
    const states = [...this.status.values()].filter((item) => item.state !== "stopped");
    if (this.status.size > 0 && states.length === 0) {
      return ["trouble", STOPPED, "Not listening", "What Streamer listened to has ended: no captions and no alerts any more."];
    }
    const mute = this.mute(states);
    if (states.length > 0 && states.every((item) => item.state === "starting")) {
      return ["connecting", `Starting${states[0].detail ? `: ${states[0].detail}` : ""}`];
    }
    if (mute.length > 0 && mute.length < states.length) {
      const which = `No sound arrives from ${mute.join(", ")}`;
      return ["silent", "No sound from all", which, "No captions and no alerts from there; the others are heard."];
    }
    if (mute.length > 0) {
      return ["silent", "No sound arrives", "No sound arrives", "Streamer runs, but its microphone delivers nothing: no captions, no alerts."];
    }
    if (states.length === 0) return ["connecting", "Connected"];
    const poor = states.find((item) => item.state === "degraded");
    if (this.lag > FAR_BEHIND_S) return ["trouble", `${Math.round(this.lag)} s behind`];
    if (poor) return ["trouble", `Degraded${poor.detail ? `: ${poor.detail}` : ""}`];
    return ["live", "Listening"];
  }

  /** Names of sessions that should be heard and are not. */
  mute(states) {
    const over = (name) => this.status.get(name)?.state === "stopped";
    const said = states.filter((item) => item.state === "no_audio").map((item) => item.session);
    return [...new Set([...said, ...this.deaf.filter((name) => !over(name))])];
  }

  clear() {
    this.status.clear();
    this.deaf = [];
  }
}

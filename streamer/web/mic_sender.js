// Sound to the server's /ingest, and this session's events back on the same socket, whatever the network does.
//
// states: "off", "connecting", "sending", "ending" (the last words are awaited), "waiting" (it tries again), "refused"
// A connection that is lost is made anew, which is a new session, but in a cluster (client.js). Meanwhile the newest WAITING_S of sound are kept, so
// that a short trouble loses nothing; what is older is left out and counted.

import { Sender as Connection } from "./client.js";

export const RATE_HZ = 16_000;
const WAITING_S = 5;
const SILENT_MS = 15_000; // of a server that says something every 5 s
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 15_000;
const TRY_LATER = 1013;
const NOT_ALLOWED = 1008;
const DONE = 1000;

export class Sender {
  /**
   * url, token, source: as for client.js's Sender. on: {state(name, detail, waitMs), event(e), missed(), heartbeat(h),
   * started(session, unsentSeconds)}: `unsentSeconds` since the connection was lost.
   */
  constructor({ on, ...place }) {
    this.place = place;
    this.on = on;
    this.state = "off";
    this.connection = null;
    this.waiting = []; // pieces
    this.unsent = 0; // samples
    this.unheard = 0; // samples that were sent since the server said anything
    this.retryMs = RETRY_MIN_MS;
    this.welcomed = false; // there was a connection once
    setInterval(() => this.watch(), 1000);
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => this.retryNow());
  }

  get unsentSeconds() {
    return this.unsent / RATE_HZ;
  }

  begin() {
    this.waiting = [];
    this.unsent = this.unheard = 0;
    this.retryMs = RETRY_MIN_MS;
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.heardAt = performance.now();
    this.trouble = "";
    this.tell("connecting");
    const connection = new Connection({
      ...this.place,
      sampleRate: RATE_HZ,
      on: {
        ...this.on,
        said: () => {
          this.heardAt = performance.now();
          this.unheard = 0;
        },
        error: ({ detail }) => {
          this.trouble = detail;
        },
        closed: (closing) => this.lost(closing, connection.waiting / 2),
      },
    });
    this.connection = connection;
    connection.start().then(
      () => connection === this.connection && this.start(connection.session),
      () => {}, // `closed` tells it
    );
  }

  start(session) {
    this.retryMs = RETRY_MIN_MS;
    this.welcomed = true;
    this.tell("sending");
    this.on.started(session, this.unsentSeconds);
    this.unsent = 0;
    const kept = this.waiting;
    this.waiting = [];
    for (const piece of kept) this.push(piece);
  }

  /** One piece of sound: sent, kept, or left out. */
  push(piece) {
    if (this.state === "sending") {
      if (this.connection.waiting > WAITING_S * RATE_HZ * 2) {
        this.unsent += piece.length;
      } else {
        this.connection.send(piece);
        this.unheard += piece.length;
      }
    } else if (this.state === "connecting" || this.state === "waiting") {
      this.waiting.push(piece);
      let kept = this.waiting.reduce((sum, one) => sum + one.length, 0);
      while (kept > WAITING_S * RATE_HZ) {
        const oldest = this.waiting.shift();
        kept -= oldest.length;
        this.unsent += oldest.length;
      }
    }
  }

  /** No more sound. The last words still come, until the state is "off"; asked again, they are not waited for. */
  end() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.state === "sending") {
      this.tell("ending");
      this.connection.stop().catch(() => {}); // `closed` tells it
    } else {
      this.connection?.leave();
      this.connection = null;
      this.tell("off");
    }
  }

  lost({ code, reason }, bufferedSamples) {
    this.connection = null;
    if (this.state === "ending") {
      this.tell("off", code === DONE ? "" : "The connection was lost before the last words came.");
      return;
    }
    if (this.state === "sending") this.unsent += bufferedSamples;
    if (code === NOT_ALLOWED) {
      this.tell("refused", this.trouble || reason);
      return;
    }
    const asked = code === TRY_LATER ? /try in (\d+) s/.exec(reason) : null;
    const waitMs = asked ? 1000 * Number(asked[1]) : this.retryMs * (0.75 + Math.random() / 2);
    this.retryMs = Math.min(RETRY_MAX_MS, this.retryMs * 2);
    this.asked = asked !== null;
    this.timer = setTimeout(() => this.connect(), waitMs);
    this.tell("waiting", code === TRY_LATER ? reason : "", waitMs);
  }

  /** Where the server did not say how long to wait. */
  retryNow() {
    if (this.timer && !this.asked && !document.hidden) this.connect();
  }

  /** A connection that looks open and is dead: what was sent into it since the server's last word may be lost too. */
  watch() {
    if (this.connection === null || performance.now() - this.heardAt < SILENT_MS) return;
    this.connection.leave();
    this.lost({ code: 0, reason: "" }, this.unheard);
  }

  tell(state, detail = "", waitMs = 0) {
    this.state = state;
    this.on.state(state, detail, waitMs);
  }
}

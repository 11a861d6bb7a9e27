// Sound to the server's /ingest, and this session's events back on the same socket.
//
// states: "off", "connecting", "sending", "ending" (the last words are awaited), "waiting" (it tries again), "refused"
// A connection that is lost is made anew, which is a new session. Meanwhile the newest WAITING_S of sound are kept, so
// that a short trouble loses nothing; what is older is left out and counted.

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
   * address: of the socket. source: a name that the server knows, or null. on: {state(name, detail, waitMs), event(e),
   * started(session, unsentSeconds)}: `unsentSeconds` since the connection was lost.
   */
  constructor({ address, source, on }) {
    this.address = address;
    this.source = source;
    this.on = on;
    this.state = "off";
    this.socket = null;
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
    const socket = new WebSocket(this.address());
    this.socket = socket;
    socket.onopen = () => {
      const start = { type: "start", sample_rate: RATE_HZ, encoding: "pcm_s16le", channels: 1, events: true };
      socket.send(JSON.stringify(this.source ? { ...start, source: this.source } : start));
    };
    socket.onmessage = ({ data }) => socket === this.socket && this.receive(data);
    socket.onclose = (closing) => socket === this.socket && this.lost(closing, socket.bufferedAmount / 2);
  }

  receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    this.heardAt = performance.now();
    this.unheard = 0;
    if (message.type === "started") this.start(message.session);
    else if (message.type === "error") this.trouble = message.detail;
    else this.on.event(message);
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
      if (this.socket.bufferedAmount > WAITING_S * RATE_HZ * 2) {
        this.unsent += piece.length;
      } else {
        this.socket.send(piece);
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
      this.socket.send(JSON.stringify({ type: "stop" }));
    } else {
      this.drop();
      this.tell("off");
    }
  }

  lost({ code, reason }, bufferedSamples) {
    this.socket = null;
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
    if (this.socket === null || performance.now() - this.heardAt < SILENT_MS) return;
    const socket = this.socket;
    this.lost({ code: 0, reason: "" }, this.unheard);
    socket.close();
  }

  drop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  tell(state, detail = "", waitMs = 0) {
    this.state = state;
    this.on.state(state, detail, waitMs);
  }
}

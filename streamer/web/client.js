// A program's connection to a Streamer: events in order and once, whatever happens to the network in between.
//
// One file without dependencies, an ES module for browsers and for programs (node 22 and newer, Deno, Bun: whatever has
// WebSocket). Copy it, or take it from a server (/static/client.js). The pages of Streamer use it themselves.
//
//   const on = { event: (event) => console.log(event) };
//   new Client({ url: "http://localhost:8765", token: "…", on }).start();
//
// The protocol: docs/protocol.md. Types and fields that you do not know may come: ignore them.

/** What every event of a session has. audio_t: the end of the sound that the decision used, in seconds.
 * @typedef {{v: 1, type: string, session: string, seq: number, audio_t: number}} Stamp */
/** @typedef {{word: string, start: number, end: number, probability: number}} Word */
/** @typedef {{index: number, label: string, score: number, span_s: number}} Tag */
/** @typedef {Stamp & {type: "status", state: "starting"|"listening"|"no_audio"|"degraded"|"stopped",
 *   detail: string}} Status */
/** text: all that is committed of the segment; partial: may still change; final: the segment is over.
 * @typedef {Stamp & {type: "transcript", segment: number, start: number, end: number, text: string, partial: string,
 *   final: boolean, words: Word[], language: string, speech_probability: number,
 *   unclear?: {start: number, end: number}[]}} Transcript */
/** @typedef {Stamp & {type: "tags", start: number, end: number, tags: Tag[]}} Tags */
/** @typedef {Stamp & {type: "sound", id: number, label: string, state: "start"|"end", start: number, end: number|null,
 *   score: number}} Sound */
/** @typedef {Stamp & {type: "alert", id: number, rule: string, severity: "info"|"warning"|"critical",
 *   state: "raised"|"updated"|"acknowledged"|"cleared", start: number, end: number|null, score: number,
 *   labels: string[], heard: Tag[], text: string, source: "live"|"file"|"demo"|"test", test?: true}} Alert */
/** @typedef {Stamp & {type: "gap", kind: "audio", start: number, end: number, reason: string}} Gap */
/** @typedef {Status|Transcript|Tags|Sound|Alert|Gap} Event */
/** @typedef {{session: string, model: string, head: string|null, sample_rate: number, oldest_seq: number,
 *   last_seq: number, active: boolean, opened_at?: number}} Session */
/** run: names this start of the server.
 * @typedef {{type: "hello", version: number, run: string, sessions: Session[], capabilities: string[]}} Hello */
/** "silent": nothing came for 15 s, nobody is listening. "refused": the server does not let this client in.
 * @typedef {"connecting"|"live"|"silent"|"refused"} State */
/**
 * All optional. event: early is true for what comes for `complete` alone, from before the backlog. missed: so many
 * events of a session are gone. state: with why it is refused. reset: the server was started anew, numbers of before
 * mean nothing.
 * @typedef {{hello?: (hello: Hello) => void, event?: (event: Event, early: boolean) => void,
 *   missed?: (gap: {session: string, count: number}) => void, state?: (state: State, detail: string) => void,
 *   reset?: () => void, heartbeat?: (message: {uptime: number,
 *     sessions: {session: string, last_audio_age: number, lag: number}[]}) => void,
 *   level?: (message: {session: string, dbfs: number}) => void,
 *   marks?: (message: {session: string, false_alarms: number[], true_alerts: number[]}) => void,
 *   set?: (message: {session: string, language: string}) => void,
 *   taught?: (message: {name: string, clips: number, needed: number, learned: boolean}) => void,
 *   error?: (message: {detail: string}) => void}} Handlers */

/**
 * All optional. said: the server said anything at all. closed: the connection is over, also where there never was one.
 * @typedef {Pick<Handlers, "event"|"missed"|"heartbeat"|"error"> & {said?: () => void,
 *   closed?: (closing: {code: number, reason: string}) => void}} SenderHandlers */

const SILENT_MS = 15_000;
const GIVE_UP_MS = 25_000; // of silence, on a connection that looks open
const CONNECT_MS = 10_000; // so long it may take until a connection is open
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 15_000;
const REFUSED_RETRY_MS = 30_000;
const NOT_ALLOWED = 1008;
const RECONNECT = 4000; // the session goes on elsewhere: come back at once
const ENDINGS = [1000, NOT_ALLOWED, 1009]; // close codes after which a sender's session goes on nowhere
const KEPT_S = 60; // of sound that was sent: another server may ask for it again
const KEPT_BYTES = 16 * 2 ** 20; // of it, at most

/** The websocket of a server, which is found at (or below) this address. */
export function address(url, path, token = null, more = {}) {
  const place = new URL(path, url);
  place.protocol = ["https:", "wss:"].includes(place.protocol) ? "wss:" : "ws:";
  place.search = new URLSearchParams(token ? { token, ...more } : more);
  place.hash = "";
  return place;
}

export class Client {
  /**
   * @param {object} wishes
   * @param {string|URL} wishes.url of the server, with a slash at the end where it is found below a path
   * @param {string|null} [wishes.token] the server's
   * @param {string[]|null} [wishes.types] of events; null: all but "level" and "marks"
   * @param {string|null} [wishes.session] whose; null: all
   * @param {number} [wishes.backlog] how many past events to ask for at first; Infinity: all that the server has
   * @param {string[]} [wishes.complete] types of which all that the server has is wanted, also older ones
   * @param {Handlers} [wishes.on]
   */
  constructor({ url, token = null, types = null, session = null, backlog = 0, complete = [], on = {} }) {
    this.url = url;
    this.token = token;
    this.types = types;
    this.complete = complete;
    this.backlogFrom = 0; // events up to this number are early
    this.session = session;
    this.backlog = backlog;
    this.on = on;
    this.run = null;
    this.newest = new Map(); // session -> seq of the last event that was handed on
    this.retryMs = RETRY_MIN_MS;
    this.heardAt = this.beganAt = performance.now();
    /** @type {State|null} */
    this.state = null;
    this.timer = null; // until the next try
    this.ending = new AbortController(); // of what listens to the page
  }

  /** Connect, and again whenever the connection breaks, until `stop`. */
  start() {
    this.tell("connecting");
    this.connect();
    this.watching = setInterval(() => this.watch(), 1000);
    if (typeof document === "undefined") return;
    const signal = this.ending.signal;
    addEventListener("online", () => this.retryNow(), { signal });
    const shown = () => {
      if (document.hidden) return;
      this.watch(); // while the page was hidden or the telephone slept, nobody watched
      this.retryNow();
    };
    document.addEventListener("visibilitychange", shown, { signal });
  }

  /** Close the connection for good. */
  stop() {
    clearInterval(this.watching);
    clearTimeout(this.timer);
    this.timer = null;
    this.ending.abort();
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
  }

  /** Say something of docs/protocol.md, `{type: "ack", id: 1, session: "s1"}`; false: not connected now. */
  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(message));
      return true;
    }
    return false;
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.beganAt = performance.now();
    // a server of a cluster that does not have the session looks for it, and says so in its `hello`
    const socket = new WebSocket(address(this.url, "ws", this.token, this.session ? { for: this.session } : {}));
    this.socket = socket;
    socket.onmessage = (message) => socket === this.socket && this.receive(message.data);
    socket.onclose = (closing) => socket === this.socket && this.lost(closing);
  }

  lost(closing) {
    this.socket = null;
    const refused = closing.code === NOT_ALLOWED;
    if (refused) this.tell("refused", closing.reason);
    else if (this.state === "live") this.tell("connecting");
    let wait = refused ? REFUSED_RETRY_MS : this.retryMs * (0.75 + Math.random() / 2);
    if (closing.code === RECONNECT) wait = RETRY_MIN_MS * Math.random();
    this.retryMs = Math.min(RETRY_MAX_MS, this.retryMs * 2);
    if (this.ending.signal.aborted) return; // a handler called `stop`
    this.timer = setTimeout(() => this.connect(), wait);
  }

  retryNow() {
    if (this.timer !== null && this.state !== "refused") this.connect();
  }

  watch() {
    const silence = performance.now() - this.heardAt;
    if (silence >= SILENT_MS && this.state !== "refused") this.tell("silent");
    const { socket } = this;
    const open = socket?.readyState === WebSocket.OPEN;
    if (open && silence >= GIVE_UP_MS) this.heardAt = performance.now() - SILENT_MS;
    else if (!socket || open || performance.now() - this.beganAt < CONNECT_MS) return;
    this.lost({ code: 0 });
    socket.close();
  }

  receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message.type !== "level") this.heardAt = performance.now(); // a level says nothing about who works
    if (message.type === "hello") this.greet(message);
    if (this.state !== "live" && message.type !== "level") this.tell("live");
    if (message.type === "heartbeat") this.on.heartbeat?.(message);
    else if (message.type === "level") this.on.level?.(message);
    else if (message.type === "marks") this.on.marks?.(message);
    else if (message.type === "set") this.on.set?.(message);
    else if (message.type === "taught") this.on.taught?.(message);
    else if (message.type === "error") this.on.error?.(message);
    else if (message.type === "gap" && message.kind === "events") this.miss(message);
    else if (Number.isInteger(message.seq)) this.take(message);
  }

  greet(hello) {
    this.retryMs = RETRY_MIN_MS;
    if (this.run !== null && this.run !== hello.run) {
      this.newest.clear();
      this.on.reset?.();
    }
    const first = this.run !== hello.run;
    this.run = hello.run;
    const wish = { type: "subscribe" };
    if (this.types) wish.types = this.types;
    if (this.session) wish.session = this.session;
    const since = this.since(hello.sessions ?? [], first);
    if (since !== null) wish.since_seq = since;
    if (first) this.backlogFrom = since ?? 0;
    if (first && since > 0 && this.complete.length > 0) wish.complete = this.complete;
    this.on.hello?.(hello);
    this.send(wish);
  }

  // One number stands for all sessions: the lowest that is needed. What comes twice because of that `take` leaves out.
  // Without a backlog a session that began while there was no connection is wanted from its beginning.
  since(sessions, first) {
    const wanted = sessions.filter((item) => this.session === null || item.session === this.session);
    if (first && this.backlog === 0) {
      for (const item of wanted) this.newest.set(item.session, item.last_seq);
    }
    const start = (last) => (first || this.backlog > 0 ? Math.max(0, last - this.backlog) : 0);
    const starts = wanted
      .map((item) => [this.newest.get(item.session) ?? start(item.last_seq), item.last_seq])
      .filter(([start, last]) => start < last)
      .map(([start]) => start);
    return starts.length > 0 ? Math.min(...starts) : null;
  }

  miss(gap) {
    const had = this.newest.get(gap.session) ?? 0;
    if (gap.to_seq <= had) return;
    this.newest.set(gap.session, gap.to_seq);
    this.on.missed?.({ session: gap.session, count: gap.to_seq - Math.max(gap.from_seq - 1, had) });
  }

  take(event) {
    if (event.seq <= (this.newest.get(event.session) ?? 0)) return;
    this.newest.set(event.session, event.seq);
    this.on.event?.(event, event.seq <= this.backlogFrom);
  }

  tell(state, detail = "") {
    if (state === this.state) return;
    this.state = state;
    this.on.state?.(state, detail);
  }
}

/**
 * Sends sound: one sender is one session, which ends with the connection, but for servers of a cluster ("resume" in
 * hello.capabilities): there it goes on at another one, by itself, with what was sent in the last minute.
 *
 *   const sender = new Sender({ url, sampleRate: 16000, on: { event: (event) => … } });
 *   await sender.start();
 *   sender.send(samples); // Int16Array
 *   await sender.stop(); // its last words have come
 */
export class Sender {
  /**
   * @param {object} wishes
   * @param {string|URL} wishes.url as for Client
   * @param {number} wishes.sampleRate in Hz, 8000 to 192000
   * @param {number} [wishes.channels] interleaved
   * @param {string|null} [wishes.token]
   * @param {string|null} [wishes.source] which entry of the server's `sources:` it is
   * @param {number} [wishes.resumeMs] for so long it is tried to go on where the server can; 0: never
   * @param {SenderHandlers} [wishes.on]
   */
  constructor({ url, sampleRate, channels = 1, token = null, source = null, resumeMs = 60_000, on = {} }) {
    this.address = address(url, "ingest", token);
    this.greeting = { type: "start", sample_rate: sampleRate, encoding: "pcm_s16le", channels, events: true };
    if (source !== null) this.greeting.source = source;
    this.on = on;
    this.session = null; // its name, once it is open
    this.resumeMs = resumeMs;
    this.resumes = false; // the server's session goes on elsewhere
    this.bytesASecond = 2 * channels * sampleRate;
    this.frameBytes = 2 * channels;
    this.kept = []; // the newest sound, in pieces
    this.keptFrom = 0; // the place of its first byte
    this.keptBytes = 0;
    this.missed = 0; // bytes since the connection broke
    this.newest = 0; // seq of the last event that was handed on
    this.closed = new Promise((resolve) => {
      this.over = resolve;
    });
  }

  /** Open the session; rejects with an Error that says why there is none. */
  start() {
    return new Promise((resolve, reject) => {
      const failed = (closing, fault) => {
        reject(new Error(fault || closing.reason || `closed with ${closing.code}`));
        this.end(closing);
      };
      this.open(this.greeting, resolve, failed);
    });
  }

  end(closing) {
    this.resuming = false;
    this.finished = true;
    this.over(closing);
    this.on.closed?.(closing);
  }

  /** A connection. opened(started): it is this sender's now; failed(closing, fault): it never was. */
  open(greeting, opened, failed) {
    const socket = new WebSocket(this.address);
    this.socket = socket;
    let fault = "";
    let open = false;
    socket.onopen = () => socket.send(JSON.stringify(greeting));
    socket.onclose = (closing) => {
      if (!open) failed(closing, fault);
      else if (this.resumes && !ENDINGS.includes(closing.code)) this.resume(closing);
      else this.end(closing);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.on.said?.();
      if (message.type === "hello") {
        this.resumes = this.resumeMs > 0 && (message.capabilities ?? []).includes("resume");
      } else if (message.type === "started") {
        open = true;
        this.session = message.session;
        opened(message);
      } else if (message.type === "error") {
        fault = message.detail;
        this.on.error?.(message);
      } else if (message.type === "heartbeat") this.on.heartbeat?.(message);
      else if (message.type === "gap" && message.kind === "events") {
        if (message.to_seq <= this.newest) return;
        const from = Math.max(message.from_seq, this.newest + 1);
        this.newest = message.to_seq;
        this.on.missed?.({ session: message.session, count: message.to_seq - from + 1 });
      } else if (Number.isInteger(message.seq) && message.seq > this.newest) {
        this.newest = message.seq;
        this.on.event?.(message);
      }
    };
  }

  /** The connection broke: go on with the session at whichever server answers. `closing`: how it broke. */
  resume(closing) {
    this.resuming = true;
    const endsAt = performance.now() + this.resumeMs;
    let rest = RETRY_MIN_MS;
    const opened = ({ audio_t: seconds = 0 }) => {
      this.resuming = false;
      this.missed = 0;
      const from = Math.round((seconds * this.bytesASecond) / this.frameBytes) * this.frameBytes;
      let at = this.keptFrom;
      for (const piece of this.kept) {
        if (at + piece.length > from) this.socket.send(piece.subarray(Math.max(0, from - at)));
        at += piece.length;
      }
      if (this.stopped) this.socket.send('{"type":"stop"}');
    };
    const failed = (again, fault) => {
      const asked = /try in (\d+) s/.exec(again.reason);
      const wait = asked ? 1000 * Number(asked[1]) : rest * (0.75 + Math.random() / 2);
      rest = Math.min(RETRY_MAX_MS, rest * 2);
      if (fault || ENDINGS.includes(again.code) || performance.now() + wait > endsAt) this.end(closing);
      else this.timer = setTimeout(attempt, wait);
    };
    const attempt = () => {
      const audio_t = (Math.ceil(this.keptFrom / this.frameBytes) * this.frameBytes) / this.bytesASecond;
      this.open({ ...this.greeting, session: this.session, audio_t }, opened, failed);
    };
    this.timer = setTimeout(attempt, closing.code === RECONNECT ? 0 : rest * (0.75 + Math.random() / 2));
  }

  /** 16-bit little-endian PCM, at most 1 MiB; false: not connected any more. `waiting`: how much is not sent yet. */
  send(pcm) {
    const open = this.socket?.readyState === WebSocket.OPEN && !this.resuming;
    if (this.finished || !(open || this.resumes)) return false;
    if (this.resumes) this.keep(pcm);
    if (open) this.socket.send(pcm);
    else this.missed += pcm.byteLength;
    return true;
  }

  keep(pcm) {
    const piece = ArrayBuffer.isView(pcm)
      ? new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength).slice()
      : new Uint8Array(pcm).slice();
    this.kept.push(piece);
    this.keptBytes += piece.length;
    const most = Math.min(KEPT_S * this.bytesASecond, KEPT_BYTES);
    while (this.keptBytes > most) {
      const { length } = this.kept.shift();
      this.keptFrom += length;
      this.keptBytes -= length;
    }
  }

  /** Bytes that the network has not taken. */
  get waiting() {
    if (this.resuming) return 0; // it is kept
    return this.missed || (this.socket?.bufferedAmount ?? 0);
  }

  /** There is no more sound; resolves when the session's last event has come. Rejects where it broke off. */
  async stop() {
    this.stopped = true;
    if (this.socket.readyState === WebSocket.OPEN && !this.resuming) this.socket.send('{"type":"stop"}');
    const closing = await this.closed;
    if (closing.code !== 1000) throw new Error(closing.reason || `closed with ${closing.code}`);
  }

  /** Leave at once: nothing is told any more. */
  leave() {
    clearTimeout(this.timer);
    this.resuming = false;
    this.finished = true;
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}

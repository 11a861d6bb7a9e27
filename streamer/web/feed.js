// The connection to the server: events in order and once, whatever happens to the network in between.
//
// states: "connecting", "live", "silent" (nothing came for SILENT_MS: nobody is listening), "refused"

const SILENT_MS = 15_000;
const GIVE_UP_MS = 25_000; // of silence, on a connection that looks open
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 15_000;
const REFUSED_RETRY_MS = 30_000;
const NOT_ALLOWED = 1008;

/**
 * The options of a page: its own address. A token is taken out of the address bar, where it would stay in history and
 * bookmarks: the server gave a cookie along with the page, and this page's connections know the token from here.
 */
export const options = new URLSearchParams(location.search);
if (options.has("token")) {
  const shown = new URL(location.href);
  shown.searchParams.delete("token");
  history.replaceState(history.state, "", shown);
}

function address() {
  const url = new URL("ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = options.has("token") ? new URLSearchParams({ token: options.get("token") }) : "";
  url.hash = "";
  return url;
}

export class Feed {
  /**
   * types: event types, null for all. session: one session's name, null for all. backlog: how many past events to ask for
   * at first; complete: types of which all that the server has is wanted, also older ones (`early`). on: {hello(h),
   * event(e, early), missed(gap), state(name, detail), reset(), heartbeat(h), level(l), marks(m), set(s), taught(t), error(e)}, all optional.
   */
  constructor({ types = null, session = null, backlog = 0, complete = [], on = {} }) {
    this.types = types;
    this.complete = complete;
    this.backlogFrom = 0; // events up to this number are early
    this.session = session;
    this.backlog = backlog;
    this.on = on;
    this.run = null;
    this.newest = new Map(); // session -> seq of the last event that was handed on
    this.retryMs = RETRY_MIN_MS;
    this.heardAt = performance.now();
    this.state = null;
  }

  start() {
    this.tell("connecting");
    this.connect();
    setInterval(() => this.watch(), 1000);
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.watch(); // while the page was hidden or the telephone slept, nobody watched
      this.retryNow();
    });
  }

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
    const socket = new WebSocket(address());
    this.socket = socket;
    socket.onmessage = (message) => socket === this.socket && this.receive(message.data);
    socket.onclose = (closing) => socket === this.socket && this.lost(closing);
  }

  lost(closing) {
    this.socket = null;
    const refused = closing.code === NOT_ALLOWED;
    if (refused) this.tell("refused", closing.reason);
    else if (this.state === "live") this.tell("connecting");
    const wait = refused ? REFUSED_RETRY_MS : this.retryMs * (0.75 + Math.random() / 2);
    this.retryMs = Math.min(RETRY_MAX_MS, this.retryMs * 2);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  retryNow() {
    if (this.timer !== null && this.state !== "refused") this.connect();
  }

  watch() {
    const silence = performance.now() - this.heardAt;
    if (silence >= SILENT_MS && this.state !== "refused") this.tell("silent");
    if (silence >= GIVE_UP_MS && this.socket?.readyState === WebSocket.OPEN) {
      this.heardAt = performance.now() - SILENT_MS;
      const socket = this.socket;
      this.lost({ code: 0 });
      socket.close();
    }
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

  // One number stands for all sessions: the lowest that is needed. What comes twice because of that is left out by `take`.
  since(sessions, first) {
    const wanted = sessions.filter((item) => this.session === null || item.session === this.session);
    if (first && this.backlog === 0) {
      for (const item of wanted) this.newest.set(item.session, item.last_seq);
    }
    const starts = wanted
      .map((item) => [this.newest.get(item.session) ?? Math.max(0, item.last_seq - this.backlog), item.last_seq])
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

// Find, save, copy, share: of the whole session, as the server keeps it.

import { byId, choice, element, setText } from "./dom.js";
import { shortName } from "./captions.js";

const SECRET = { 401: "the server wants its token or a new link", 404: "the server no longer has this session" };

export class Transcripts {
  /** captions: see captions.js. token: of this page's address, or null: its cookie does. only: the session shown. */
  constructor(captions, token, only) {
    this.captions = captions;
    this.token = token;
    this.only = only;
    this.sessions = []; // as `hello` names them, and those that came later
    this.hits = [];
    this.hit = -1;
    for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => this.save(button.dataset.save));
    byId("copy").addEventListener("click", () => this.copy());
    byId("share").addEventListener("click", () => this.share());
    byId("share").hidden = !navigator.share;
    byId("earlier").addEventListener("click", () => this.loadEarlier());
    byId("find").addEventListener("submit", (event) => {
      event.preventDefault();
      this.find(-1);
    });
    byId("find-later").addEventListener("click", () => this.find(1));
    byId("query").addEventListener("input", () => this.forget());
  }

  /** A session, and whether it can have captions that are not on this page. */
  meet(session, earlier) {
    if (this.only !== null && session !== this.only) return;
    if (earlier) byId("earlier").hidden = false;
    if (this.sessions.includes(session)) return;
    this.sessions.push(session);
    byId("save-session").append(choice(session, shortName(session)));
    byId("save-session").value = session;
    byId("save-session-label").hidden = this.sessions.length < 2;
  }

  newRun() {
    this.sessions = [];
    byId("save-session").replaceChildren();
    byId("save-session-label").hidden = true;
    byId("earlier").hidden = true;
  }

  async fetch(session, format) {
    const headers = this.token === null ? {} : { Authorization: `Bearer ${this.token}` };
    const response = await fetch(`transcript?${new URLSearchParams({ session, format })}`, { headers, cache: "no-store" });
    if (!response.ok) throw new Error(SECRET[response.status] ?? `the server answered ${response.status}`);
    return response;
  }

  /** Do it with the session's transcript and say what came of it. */
  async with(format, act, done) {
    const session = byId("save-session").value;
    try {
      if (!session) throw new Error("there is no session yet");
      await act(await this.fetch(session, format), session);
      setText(byId("saved"), done);
    } catch (error) {
      if (error.name !== "AbortError") setText(byId("saved"), `Not done: ${error.message}`);
    }
  }

  save(format) {
    return this.with(format, async (response, session) => {
      const link = element("a");
      link.href = URL.createObjectURL(await response.blob());
      link.download = `${session.replaceAll(/[^\w.-]+/g, "_")}.${format}`;
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }, "Saved.");
  }

  copy() {
    return this.with("txt", async (response) => {
      const text = await response.text();
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else copyWithout(text);
    }, "Copied.");
  }

  share() {
    return this.with("txt", async (response, session) => {
      await navigator.share({ title: `Streamer: ${shortName(session)}`, text: await response.text() });
    }, "Shared.");
  }

  /** Bring everything that the server has of the sessions onto the page. */
  async loadEarlier() {
    byId("earlier").disabled = true;
    try {
      for (const session of this.sessions) {
        const text = await (await this.fetch(session, "jsonl")).text();
        const events = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
        if (events[0]?.kind === "events") this.captions.note("The beginning is no longer kept by the server.", session, 0);
        this.captions.load(events);
      }
      if (byId("earlier") === document.activeElement) byId("captions").focus();
      byId("earlier").hidden = true;
      return true;
    } catch (error) {
      setText(byId("found"), `Only what is on this page was looked through: ${error.message}`);
      return false;
    } finally {
      byId("earlier").disabled = false;
    }
  }

  async find(step) {
    const query = byId("query").value.trim();
    if (this.query !== query || this.hits.some((line) => !line.node.isConnected)) {
      if (!byId("earlier").hidden && query) await this.loadEarlier();
      this.query = query;
      this.hits = this.captions.find(query);
      [this.hit, step] = [this.hits.length, -1]; // the newest comes first
    }
    if (this.hits.length === 0) {
      setText(byId("found"), query ? "Not found" : "");
      return;
    }
    this.hit = (this.hit + step + this.hits.length) % this.hits.length;
    this.captions.show(this.hits[this.hit]);
    setText(byId("found"), `${this.hit + 1} of ${this.hits.length}`);
  }

  /** Nothing is searched for any more. */
  forget() {
    this.query = undefined;
    setText(byId("found"), "");
    if (byId("query").value === "" || byId("find-panel").hidden) this.captions.find("");
  }
}

/** Where the page came without TLS from another machine browsers have no clipboard: the old way is left. */
function copyWithout(text) {
  const area = element("textarea", "unseen");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("this browser has no clipboard for pages without https");
}

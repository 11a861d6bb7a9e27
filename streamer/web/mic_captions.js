// What Streamer makes of this microphone: the last captions, sounds and alerts. Text from outside is textContent only.

import { byId, element, joined, SEVERITIES, setText, title, UNCLEAR } from "./dom.js";

const MAX_LINES = 200;
const NEAR_END_PX = 60;

export class Captions {
  constructor() {
    this.view = byId("heard");
    this.alerts = new Map(); // id -> element
    this.open = null; // the transcript that is not final
    this.missing = null; // {line, seconds}: what was not recorded
    this.beganAt = 0; // of the session, by this device's clock
    this.follow = true;
    this.view.addEventListener("scroll", () => {
      this.follow = this.view.scrollHeight - this.view.scrollTop - this.view.clientHeight < NEAR_END_PX;
    });
    new ResizeObserver(() => this.scroll()).observe(this.view);
  }

  begin() {
    this.beganAt = Date.now();
  }

  take(event) {
    if (event.type === "transcript") this.transcript(event);
    else if (event.type === "sound" && event.state === "start") this.line(event.start, `[${event.label}]`, "heard");
    else if (event.type === "alert") this.alert(event);
    else if (event.type === "gap" && event.kind === "audio") {
      this.note(`${(event.end - event.start).toFixed(1)} s of sound was lost at ${this.time(event.start)}: ${event.reason}`);
    }
  }

  missed() {
    this.note("Some captions are missing here: this connection is too slow.");
  }

  transcript(event) {
    setText(byId("committed"), event.final ? "" : event.text);
    setText(byId("partial"), event.final ? "" : joined(event.text, event.partial));
    this.open = event.final ? null : event;
    if (!event.final) {
      byId("empty").hidden ||= Boolean(event.text || event.partial);
      this.scroll();
      return;
    }
    if (event.text.trim()) this.line(event.start, event.text.trim());
    if (event.unclear?.length > 0) this.line(event.unclear[0].start, UNCLEAR, "unclear");
  }

  alert(event) {
    let row = this.alerts.get(event.id);
    if (event.state === "cleared") {
      row?.remove();
      this.alerts.delete(event.id);
      return;
    }
    if (!row) {
      row = element("p", `alert ${event.severity in SEVERITIES ? event.severity : "info"}`);
      this.alerts.set(event.id, row);
      byId("alerts").append(row);
      this.line(event.start, title(event), "heard");
    }
    setText(row, `${SEVERITIES[event.severity] ?? "Notice"}: ${title(event)}`);
  }

  line(seconds, text, kind) {
    const line = element("p", kind);
    line.append(element("time", "", this.time(seconds)), element("span", "", text));
    this.add(line);
  }

  /** Of the day: a session's own seconds begin anew with each connection. */
  time(seconds) {
    return new Date(this.beganAt + 1000 * seconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }

  note(text) {
    const line = element("p", "note", text);
    this.add(line);
    return line;
  }

  /** Said in one line as long as nothing else is said behind it. */
  notRecorded(seconds) {
    const goesOn = this.missing && this.missing.line === byId("captions").lastChild;
    const total = seconds + (goesOn ? this.missing.seconds : 0);
    const text = `${total.toFixed(1)} s were not recorded: this device was asleep or busy, or something else had the microphone.`;
    if (goesOn) setText(this.missing.line, text);
    this.missing = { line: goesOn ? this.missing.line : this.note(text), seconds: total };
  }

  /** A session is over: what was committed stays, nothing else of it is open any more. */
  close() {
    if (this.open?.text.trim()) this.line(this.open.start, this.open.text.trim());
    this.open = null;
    setText(byId("committed"), "");
    setText(byId("partial"), "");
    for (const row of this.alerts.values()) row.remove();
    this.alerts.clear();
  }

  add(line) {
    byId("empty").hidden = true;
    const log = byId("captions");
    log.append(line);
    while (log.children.length > MAX_LINES) log.firstChild.remove();
    this.scroll();
  }

  scroll() {
    if (this.follow) this.view.scrollTop = this.view.scrollHeight;
  }
}

// Which session is shown, and which language it is heard in, by whoever may set it.

import { byId, choice, setText } from "./dom.js";
import { shortName } from "./captions.js";

const PATIENCE_MS = 8000;
const COMMON = ["en", "de", "es", "fr", "it", "pt", "ru", "nl", "pl", "tr", "uk", "ar", "hi", "zh", "ja", "ko"];

export class Listening {
  /** send(message): false when there is no connection. only: the session that this page shows, null: all. */
  constructor(send, only) {
    this.send = send;
    this.only = only;
    this.waiting = null;
    this.sessions = [];
    const names = new Intl.DisplayNames(undefined, { type: "language" }); // the browser's own: some name it as Intl does not take it
    byId("languages").append(...COMMON.map((code) => choice(code, names.of(code))));
    byId("language-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.set(byId("language").value.trim() || "auto");
    });
    byId("session").addEventListener("change", () => {
      const address = new URL(location.href);
      address.searchParams.delete("session");
      if (byId("session").value) address.searchParams.set("session", byId("session").value);
      location.assign(address);
    });
  }

  hello(message) {
    this.sessions = (message.sessions ?? []).filter((item) => item.active !== false).map((item) => item.session);
    const able = (message.capabilities ?? []).includes("set");
    const several = this.sessions.length > 1 || this.only !== null;
    const names = new Set([...this.sessions, ...(this.only === null ? [] : [this.only])]);
    byId("session").replaceChildren(choice("", "all"), ...[...names].map((name) => choice(name, shortName(name))));
    byId("session").value = this.only ?? "";
    byId("session-label").hidden = !several;
    byId("language-form").hidden = !able;
    byId("listening").hidden = !able && !several;
  }

  set(language) {
    const session = this.only ?? (this.sessions.length === 1 ? this.sessions[0] : null);
    if (this.sessions.length > 1 && session === null) return this.say("Choose one session first: each has a language of its own.");
    const message = { type: "set", language, ...(session === null ? {} : { session }) };
    if (!this.send(message)) return this.say("Not set: there is no connection.");
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.end("The server did not answer (yet)."), PATIENCE_MS);
    return this.say("Setting …");
  }

  done(message) {
    const any = message.language === "auto";
    this.end(`Set: ${any ? "any language, detected" : message.language.replaceAll(",", ", ")}.`);
  }

  /** An error of the server: whether it is about this. */
  refused(detail) {
    if (this.waiting === null || !/^(set|language|session)\b/.test(detail)) return false;
    this.end(`Not set: ${detail}`);
    return true;
  }

  end(text) {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.say(text);
  }

  say(text) {
    setText(byId("language-said"), text);
  }
}

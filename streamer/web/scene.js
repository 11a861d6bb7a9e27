// The hearing aid on the viewer: what the surroundings are taken for, in a few words, and a way to hold a program.

import { byId, setText } from "./dom.js";

export const SCENES = { quiet: "quiet", speech: "speech", speech_in_noise: "speech in noise", noise: "noise", music: "music", alarm: "an alarm" };
const PATIENCE_MS = 8000;

export class SceneLine {
  /** send(message): false when there is no connection. */
  constructor(send) {
    this.send = send;
    this.waiting = null;
    byId("program").addEventListener("change", () => this.hold(byId("program").value));
  }

  /** Shown from the first scene on: where the hearing aid is off there is none. */
  take(event) {
    setText(byId("scene"), `It sounds like ${SCENES[event.scene] ?? event.scene}`);
  }

  hello(message) {
    byId("program-label").hidden = !(message.capabilities ?? []).includes("program");
  }

  hold(program) {
    if (!this.send({ type: "set", program })) return this.say("Not held: there is no connection.");
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.end("The server did not answer (yet)."), PATIENCE_MS);
    return this.say("");
  }

  done(message) {
    byId("program").value = message.program;
    this.end(message.program === "auto" ? "The surroundings choose." : "Held.");
  }

  /** An error of the server: whether it is about this. */
  refused(detail) {
    if (this.waiting === null || !/^(set|program)\b/.test(detail)) return false;
    this.end(`Not held: ${detail}`);
    return true;
  }

  clear() {
    setText(byId("scene"), "");
  }

  end(text) {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.say(text);
  }

  say(text) {
    setText(byId("program-said"), text);
  }
}

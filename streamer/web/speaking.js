// Type to speak: the browser's own voice says it. Nothing of it goes to the server; the microphone may hear it.

import { byId, choice, setText } from "./dom.js";
import { remembered, stored } from "./settings.js";

export function speaking() {
  const synthesis = globalThis.speechSynthesis;
  const say = (text) => setText(byId("spoken"), text);
  const select = byId("voice");
  if (!synthesis) {
    say("This browser has no voice.");
    return;
  }
  const fill = () => {
    const voices = synthesis.getVoices();
    const chosen = stored("voice") ?? select.value;
    select.replaceChildren(...voices.map((voice) => choice(voice.voiceURI, `${voice.name} (${voice.lang})`)));
    select.value = voices.some((voice) => voice.voiceURI === chosen) ? chosen : (voices.find((voice) => voice.default) ?? voices[0])?.voiceURI;
    say(voices.length === 0 ? "No voices are installed for this browser." : "");
  };
  fill();
  synthesis.addEventListener?.("voiceschanged", fill); // some browsers name them only later
  remembered("voice", () => {});
  byId("speak").addEventListener("submit", (event) => {
    event.preventDefault();
    const words = byId("words").value.trim();
    if (!words) return;
    const utterance = new SpeechSynthesisUtterance(words);
    utterance.voice = synthesis.getVoices().find((voice) => voice.voiceURI === select.value) ?? null;
    utterance.onstart = () => say(`Saying: ${words}`);
    utterance.onend = () => say(`Said: ${words}`);
    utterance.onerror = (trouble) => say(trouble.error === "canceled" || trouble.error === "interrupted" ? "Stopped." : "The voice failed.");
    synthesis.speak(utterance);
    byId("words").value = "";
  });
  byId("hush").addEventListener("click", () => synthesis.cancel());
}

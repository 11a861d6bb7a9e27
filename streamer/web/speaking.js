// Type to speak: the browser's own voice says it. Nothing of it goes to the server; the microphone may hear it.

import { byId, element, setText } from "./dom.js";
import { remembered, stored } from "./settings.js";

export function speaking() {
  const synthesis = globalThis.speechSynthesis;
  const say = (text) => setText(byId("spoken"), text);
  const choice = byId("voice");
  if (!synthesis) {
    say("This browser has no voice.");
    return;
  }
  const fill = () => {
    const voices = synthesis.getVoices();
    const chosen = stored("voice") ?? choice.value;
    choice.replaceChildren(...voices.map((voice) => {
      const item = element("option", "", `${voice.name} (${voice.lang})`);
      item.value = voice.voiceURI;
      return item;
    }));
    choice.value = voices.some((voice) => voice.voiceURI === chosen) ? chosen : (voices.find((voice) => voice.default) ?? voices[0])?.voiceURI;
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
    utterance.voice = synthesis.getVoices().find((voice) => voice.voiceURI === choice.value) ?? null;
    utterance.onstart = () => say(`Saying: ${words}`);
    utterance.onend = () => say(`Said: ${words}`);
    utterance.onerror = (trouble) => say(trouble.error === "canceled" || trouble.error === "interrupted" ? "Stopped." : "The voice failed.");
    synthesis.speak(utterance);
    byId("words").value = "";
  });
  byId("hush").addEventListener("click", () => synthesis.cancel());
}

// A text that the overlay plays to whoever sets it up: as somebody speaks, with the last words still open, and a sound.

const WORD_MS = 330;
const PAUSE_WORDS = 8; // between two rounds

export function play(text, show) {
  const words = text.split(/\s+/u).filter(Boolean);
  let segment = 0;
  let count = 0;
  const step = () => {
    count += 1;
    if (count <= words.length + 1) {
      const sure = count > words.length ? count : Math.max(0, count - 2);
      const event = { type: "transcript", session: "sample", segment, final: count > words.length };
      show({ ...event, text: words.slice(0, sure).join(" "), partial: words.slice(sure, count).join(" ") });
    } else if (count === words.length + 4) show({ type: "sound", state: "start", label: "doorbell" });
    else if (count > words.length + PAUSE_WORDS) {
      segment += 1;
      count = 0;
    }
  };
  step();
  setInterval(step, WORD_MS);
}

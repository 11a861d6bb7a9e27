// In the browser's audio thread: the microphone as 16 kHz mono 16-bit pieces of a tenth of a second.

import { Resampler } from "./mic_resampler.js";

const RATE_HZ = 16_000;
const PIECE = RATE_HZ / 10; // samples

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE_HZ);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.over = false;
    this.port.onmessage = () => this.finish();
  }

  process([channels]) {
    if (!this.over && channels.length > 0) this.take(this.resampler.push(mean(channels)));
    return !this.over;
  }

  take(samples) {
    for (const sample of samples) {
      this.piece[this.filled++] = Math.round(32_767 * Math.max(-1, Math.min(1, sample)));
      if (this.filled === PIECE) this.send();
    }
  }

  send() {
    const piece = this.piece.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage(piece, [piece.buffer]);
  }

  /** Asked to end: the rest, then an empty piece. */
  finish() {
    if (this.over) return;
    this.over = true;
    this.take(this.resampler.finish());
    if (this.filled > 0) this.send();
    this.send();
  }
}

function mean(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, index) => channels.reduce((sum, channel) => sum + channel[index], 0) / channels.length);
}

registerProcessor("streamer-microphone", Microphone);

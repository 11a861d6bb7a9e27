// A self-check of half a minute: tones that grow until somebody hears them. No medical measurement: how loud the
// headphones are is only known from the noise that a person sets to the loudness of talk before.

export const TONES_HZ = [1000, 2000, 4000, 500];
const EARS = ["right", "left"];
const TONE_MS = 3_600;
const PAUSE_MS = 150;
const FIRST_HL = 0;
const LAST_HL = 80;
const FULL_SCALE_HL = 85; // dB HL of a tone at full scale, where noise at -20 dBFS is as loud as talk (65 dB)
const REACTION_MS = 250; // from hearing it to pressing the button
const STEP_HL = 5; // what is proposed is rounded to it
const NOISE_DBFS = -20;
const NOISE_S = 4;

let context = null;

function audio() {
  context ??= new AudioContext();
  context.resume();
  return context;
}

export function comfortNoise() {
  const on = audio();
  const buffer = on.createBuffer(1, on.sampleRate * NOISE_S, on.sampleRate);
  const samples = buffer.getChannelData(0);
  let low = 0;
  for (let at = 0; at < samples.length; at += 1) {
    low = 0.9 * low + 0.1 * (Math.random() * 2 - 1); // softer highs, as speech has them
    samples[at] = low;
  }
  const power = Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length);
  const gain = 10 ** (NOISE_DBFS / 20) / power;
  for (let at = 0; at < samples.length; at += 1) samples[at] *= gain;
  const source = on.createBufferSource();
  source.buffer = buffer;
  source.connect(on.destination);
  source.start();
}

export class SelfCheck {
  /** on: step(number, count, ear, hz), found(ear, hz, level), over(how many tones were not heard) */
  constructor(on) {
    this.on = on;
    this.tones = EARS.flatMap((ear) => TONES_HZ.map((hz) => ({ ear, hz })));
  }

  start() {
    this.number = -1;
    this.missed = 0;
    this.next();
  }

  /** The person hears the tone that grows. */
  heard() {
    if (!this.playing) return;
    const grown = (performance.now() - this.beganAt - REACTION_MS) / TONE_MS;
    this.end(FIRST_HL + Math.max(0, Math.min(1, grown)) * (LAST_HL - FIRST_HL));
  }

  next() {
    this.number += 1;
    if (this.number >= this.tones.length) {
      this.on.over(this.missed);
      return;
    }
    const { ear, hz } = this.tones[this.number];
    this.on.step(this.number + 1, this.tones.length, ear, hz);
    const on = audio();
    const tone = on.createOscillator();
    const volume = on.createGain();
    const side = on.createStereoPanner();
    tone.frequency.value = hz;
    side.pan.value = ear === "right" ? 1 : -1;
    const level = (hearing) => 10 ** ((hearing - FULL_SCALE_HL) / 20);
    volume.gain.setValueAtTime(level(FIRST_HL), on.currentTime);
    volume.gain.exponentialRampToValueAtTime(level(LAST_HL), on.currentTime + TONE_MS / 1000); // even in decibels
    tone.connect(volume).connect(side).connect(on.destination);
    tone.start();
    this.playing = { tone, volume };
    this.beganAt = performance.now();
    this.timer = setTimeout(() => {
      this.missed += 1;
      this.end(LAST_HL);
    }, TONE_MS);
  }

  end(level) {
    const { ear, hz } = this.tones[this.number];
    clearTimeout(this.timer);
    const { tone, volume } = this.playing;
    this.playing = null;
    volume.gain.cancelScheduledValues(context.currentTime);
    volume.gain.setTargetAtTime(0, context.currentTime, 0.01);
    tone.stop(context.currentTime + 0.1);
    this.on.found(ear, hz, Math.round(level / STEP_HL) * STEP_HL);
    setTimeout(() => this.next(), PAUSE_MS);
  }
}

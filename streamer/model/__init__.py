"""The model: Whisper encoder with taps, tagging heads, checkpoints, labels."""

"""How the bundled heads of `tiny.en` and `base` were taught: what they heard, and where it came from."""

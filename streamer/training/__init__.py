"""Training and evaluation of heads and of the bundled model."""

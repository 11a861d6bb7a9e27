"""`nano`, the bundled model: made from a small manifest and synthesis in under an hour on two cores."""

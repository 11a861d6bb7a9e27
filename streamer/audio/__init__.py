"""Audio in: sources, ring buffer, resampling, mel frames."""

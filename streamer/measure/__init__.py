"""What benches and training share: recordings with their truth, word errors, reports."""

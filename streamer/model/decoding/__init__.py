"""Decoding: explicit KV cache, greedy search, filters, alignment."""

"""Threads: capture, listener, worker, supervision."""

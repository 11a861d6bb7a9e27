"""`streamer bench chaos`: the running program, and what may go wrong around and inside it."""

"""Checkpoint formats: each module reads one kind of file into openai-whisper's own module, on the CPU."""

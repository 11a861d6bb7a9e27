"""Captions in files and in the terminal."""

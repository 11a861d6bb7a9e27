"""Sounds and scenes that are composed."""

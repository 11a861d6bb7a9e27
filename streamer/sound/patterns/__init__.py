"""Detectors in the signal: smoke and carbon monoxide alarms, sirens, tones."""

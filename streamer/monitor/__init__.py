"""The hearing aid: from the microphone to a person's headphones, at once, fitted to what this person hears."""

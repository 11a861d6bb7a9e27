"""Teaching an official encoder to hear short windows (`streamer train context`): see `make`."""

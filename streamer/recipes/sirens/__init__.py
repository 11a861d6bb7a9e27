"""How the network that hears sirens (`streamer.sound.patterns.sirens`) is made: `streamer train sirens`."""

"""How the network that hears sirens (`streamer.sound.patterns.siren_net`) is made: `streamer train sirens`."""

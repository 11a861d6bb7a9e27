"""How the network that hears sirens (`streamer.sound.siren_net`) is made: `streamer train sirens`."""

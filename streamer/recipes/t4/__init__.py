"""How the network that tells a CO alarm's beeps (`streamer.sound.patterns.t4`) is made: `streamer train t4`."""

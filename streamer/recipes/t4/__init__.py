"""How the network that tells a CO alarm's beeps (`streamer.sound.patterns.beep_net`) is made: `streamer train t4`."""

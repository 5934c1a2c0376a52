"""What several tests need: golden models, a Hub on loopback, tiny MusicGens, measures."""

"""How a clip is heard. In: a waveform, whole or piece by piece. Out: sound, by a player of this machine."""

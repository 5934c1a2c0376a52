"""Waveforms and audio files: reading, resampling, loudness, joining and encoding of float arrays [C, L]."""

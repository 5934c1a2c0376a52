"""Waveforms and files. In: float arrays [C, L]. Out: levelled, joined and looped waveforms, files written atomically."""

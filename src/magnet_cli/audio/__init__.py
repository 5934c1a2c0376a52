"""Waveforms and files. In: float arrays [C, L]. Out: waveforms levelled, joined, looped; files written atomically."""

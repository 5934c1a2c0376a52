"""The whole chain in memory: jobs in, finished waveforms out."""

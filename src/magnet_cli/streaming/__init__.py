"""Music without an end. In: prompts that may change, a seed. Out: waveform, a second at a time, and what replays it."""

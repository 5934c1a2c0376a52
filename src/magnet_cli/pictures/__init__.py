"""How a clip looks. In: a waveform and what is known of it. Out: a PNG. Needs matplotlib, an extra."""

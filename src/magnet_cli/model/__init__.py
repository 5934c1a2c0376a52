"""The networks: text encoder, masked decoder, codec. In: configurations and weights. Out: states, logits, waveforms."""

"""Training MAGNeT's decoder, from scratch or from a checkpoint, and EnCodec. In: a folder of audio. Out: a bundle."""

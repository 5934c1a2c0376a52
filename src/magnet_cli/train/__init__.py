"""Training: MAGNeT's decoder, from nothing or from a released checkpoint, and EnCodec."""

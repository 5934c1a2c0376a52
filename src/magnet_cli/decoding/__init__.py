"""The algorithm in its readable form: masked iterative decoding. The engines must give the same codes."""

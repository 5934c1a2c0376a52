"""The algorithm, readable: masked iterative decoding and what steers it. The definition that engines obey."""

"""What computes logits fast: on a CPU, on a GPU; which device, which precision. Codes are those of `decoding`."""

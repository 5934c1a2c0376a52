"""Fast computation of logits on CPUs and GPUs; choice of device and precision. Codes equal those of `decoding`."""

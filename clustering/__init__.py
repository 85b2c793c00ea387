"""Stage 2c: the weights of every layer drawn from a few shared values."""

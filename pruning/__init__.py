"""Stage 2a: the smallest weights of every layer set to zero."""

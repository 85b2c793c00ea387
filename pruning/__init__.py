"""Stage 2a: set the smallest weights, filters or channels of a network to zero, and take them out where asked to."""

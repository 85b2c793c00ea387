"""Stage 2a: the smallest weights, filters or channels of a network set to zero, and taken out where that is asked."""

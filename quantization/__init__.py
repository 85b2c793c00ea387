"""Stage 2b: weights and activations on eight bits."""

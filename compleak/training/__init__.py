"""How models are made: one training loop, one assignment a model, one way from an assignment to a checkpoint."""

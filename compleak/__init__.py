"""Plumbing of the audit: flags, paths, checkpoints, training, signals, metrics and reports."""

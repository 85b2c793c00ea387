"""Audits that a task file describes: the file is read and checked before any work begins, then it is run."""

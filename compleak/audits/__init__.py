"""The attack stage: from signals files to one table of attacks with intervals and controls."""

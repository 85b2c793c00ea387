"""Data sets, their splits between victim and attacker, and the transforms every query goes through."""

"""Data sets, the kinds of input that they hold, and the split of their points between victim and attacker."""

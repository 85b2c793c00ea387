"""The attack stage: from signals files to one table of attacks with intervals and controls.

Start reading at `attack_stage`. It asks, in this order: `target`, which files are attacked; `attackers` and `halves`,
whose membership the attacker knows; `usable`, which points the attacks can be run on; `job`, what each attack finds on
one target, with `verdicts` and `chosen` for two fits and `first_stage` for MR; `controls`, whether something else than
memory is found. `metrics` and `intervals` measure, `table` writes rows and files, `flags` reads the command line.
"""

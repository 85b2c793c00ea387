"""What the attacks share, one file a subject.

Every attack is a pure function: arrays in, scores out. It is fitted on the shadow models, whose membership the attacker
knows because the attacker trained them, and applied to the victim, whose membership is withheld.

Letters in shapes: R models (row 0 is the victim, the others are the shadows), N points, C classes, K models of the same
points (original and compressed), M audited (model, point) rows of all shadows stacked, A audited points of the victim.

Scores are float64, because ranks matter: a float32 sigmoid ties thousands of points. Answers, and what forests and
networks read, are float32.
"""

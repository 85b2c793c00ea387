"""Weight decay stronger than usual, a plain control: Shokri et al. 2017 (S&P), section VIII, call it regularization.

Every step pulls the trained weights towards zero by this factor times the learning rate, so that the model has less
room to memorise. The recipe's usual factor is 5e-4 (PROTOCOL, section 2); the defence puts its own in its place.
"""

from defenses.procedure import Procedure


class WeightDecay(Procedure):
    """`factor` takes the place of the recipe's weight decay."""

    def __init__(self, factor: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.factor = factor

    def start(self, model, optimizer, examples, batch_size, reserve):
        for group in optimizer.param_groups:
            group["weight_decay"] = self.factor
        return optimizer

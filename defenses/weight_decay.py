"""Weight decay stronger than usual, a plain control: Shokri et al. 2017 (S&P), section VIII, call it regularization.

Every step pulls the trained weights towards zero by this factor times the learning rate, so that the model has less
room to memorise. The recipe's usual factor is 5e-4 with SGD and 0.01 with AdamW (PROTOCOL, section 2); the defence puts
its own in its place, which must be larger. In meta.json `weight_decay` is the recipe's, `defend_arg` the one that acts.
"""

from core.errors import UserError
from defenses.procedure import Procedure


class WeightDecay(Procedure):
    """`factor` takes the place of the recipe's weight decay."""

    def __init__(self, factor: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.factor = factor

    @staticmethod
    def check_recipe(argument, optimizer, weight_decay):
        if argument <= weight_decay:
            raise UserError(
                f"--defend weight_decay {argument:g} is not above {weight_decay:g}, the usual weight decay of "
                f"{optimizer}: give a larger --defend_arg"
            )

    def start(self, model, optimizer, examples, batch_size, reserve):
        for group in optimizer.param_groups:
            group["weight_decay"] = self.factor
        return optimizer

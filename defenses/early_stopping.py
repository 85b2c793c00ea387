"""Early stopping, a plain control: Song & Mittal 2021 (USENIX Security), section 5.1; SELENA 2022, figure 4.

Training ends after a share of the recipe's epochs. Until then it is the undefended training, learning rates included,
so that models stopped at several shares are snapshots of one training. No held-out point has a say in when it ends.
"""

from defenses.procedure import Procedure


class EarlyStopping(Procedure):
    """`share` of the epochs, in (0, 1], after which training ends; at least one epoch is trained."""

    stops_early = True

    def __init__(self, share: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.share = share

    def epochs(self, planned: int) -> int:
        return max(1, round(self.share * planned))

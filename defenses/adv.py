"""Nasr, Shokri, Houmansadr 2018, Machine learning with membership privacy using adversarial regularization (CCS).

A game of two (eq. 6): an inference network h is trained to tell members from a reserve of points that are of the same
kind but no members, by what the model answers about them; the model minimises its loss and h's gain together. As in
algorithm 1 h makes several steps, ROUNDS, before each one of f; here on the answers about one batch, f's own.

    h maximises   mean over members log h(x, y, f(x)) / 2 + mean over reserve log(1 - h(x, y, f(x))) / 2   (eq. 5)
    f minimises   cross-entropy + alpha * mean over members log h(x, y, f(x))                           (algorithm 1)

The reserve is not of the model's audit set: fitted against the audit's non-members it would hide from this audit alone.
h sees posteriors and labels as an attacker would: of the model in eval mode, both kinds through the same transform.
Each fine-tuning starts with a new h. log h is unbounded below, so that with a large alpha f pushes members past where
non-members are, at the cost of their labels, and is given away by that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import devices
from defenses.procedure import Procedure
from quantization import int8

RATE = 1e-3  # of Adam, as in the paper
ROUNDS = 5  # steps of h for one of f


class Inference(nn.Module):
    """h of section 4.2, a branch for the posterior and one for the label: (B, C) and (B,) -> (B,) logits of h."""

    def __init__(self, num_cls: int) -> None:
        super().__init__()
        self.num_cls = num_cls
        self.posterior = stack(num_cls, 1024, 512, 64)
        self.label = stack(num_cls, 512, 64)
        self.joined = nn.Sequential(stack(128, 256, 64), nn.Linear(64, 1))

    def forward(self, posterior: Tensor, labels: Tensor) -> Tensor:
        known = self.label(F.one_hot(labels, self.num_cls).float())
        return self.joined(torch.cat([self.posterior(posterior), known], dim=1))[:, 0]


def stack(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, a ReLU after each."""
    pairs = zip(widths, widths[1:], strict=False)
    return nn.Sequential(*(module for pair in pairs for module in (nn.Linear(*pair), nn.ReLU())))


def gain(members: Tensor, reserve: Tensor) -> Tensor:
    """What h maximises (eq. 5), of its logits for members (B,) and for the reserve (B',)."""
    return (F.logsigmoid(members).mean() + F.logsigmoid(-reserve).mean()) / 2


def objective(logits: Tensor, labels: Tensor, members: Tensor, weight: float) -> Tensor:
    """What f minimises (algorithm 1): (B, C) logits, (B,) labels, (B,) logits of h for them, alpha -> ()."""
    return F.cross_entropy(logits, labels) + weight * F.logsigmoid(members).mean()


class AdversarialRegularization(Procedure):
    """`weight` is alpha (the paper's lambda)."""

    needs_reserve = steps_on_reserve = True

    def __init__(self, weight: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.weight = weight
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inference = Inference(num_cls)
        self.optimizer = torch.optim.Adam(self.inference.parameters(), RATE)

    def start(self, model, optimizer, examples, batch_size, reserve):
        self.inference.to(reserve.device)
        int8.set_ranges(model, reserve)  # h asks before f's first step
        return optimizer

    def step(self, model, optimizer, inputs, labels, reserve):
        self.train_inference(model, (inputs, labels), reserve)
        optimizer.zero_grad(set_to_none=True)
        with devices.training_autocast(inputs.device):
            logits = model(inputs)
        logits = logits.float()
        loss = objective(logits, labels, self.inference(logits.softmax(dim=1), labels), self.weight)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def train_inference(self, model, members: tuple[Tensor, Tensor], reserve: tuple[Tensor, Tensor]) -> None:
        """Steps of h against the model as it now answers."""
        model.eval()
        with torch.no_grad(), devices.training_autocast(members[0].device):
            answers = model(torch.cat([members[0], reserve[0]])).float().softmax(dim=1)
        model.train()
        labels = torch.cat([members[1], reserve[1]])
        for _ in range(ROUNDS):
            found = self.inference(answers, labels)
            self.optimizer.zero_grad(set_to_none=True)
            (-gain(found[: len(members[1])], found[len(members[1]) :])).backward()
            self.optimizer.step()

    def state_dict(self) -> dict:
        return {"inference": self.inference.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.inference.load_state_dict(state["inference"])
        self.optimizer.load_state_dict(state["optimizer"])

"""Nasr, Shokri, Houmansadr 2018, Machine learning with membership privacy using adversarial regularization (CCS).

Two networks play a game (eq. 6). The inference network h sees what the model f answers about a point and is trained to
tell members from the points of a reserve, which are of the same kind but no members. The model is trained to classify
and to make h's gain small.

    h maximises   mean over members log h(x, y, f(x)) / 2 + mean over reserve log(1 - h(x, y, f(x))) / 2   (eq. 5)
    f minimises   cross-entropy + alpha * mean over members log h(x, y, f(x))                           (algorithm 1)

As in algorithm 1, h makes several steps (ROUNDS) before each step of f. Here all of them use f's own batch and as many
points of the reserve. Members and reserve are asked through the same transform, and f answers in eval mode, as it would
answer an attacker. Each training and each fine-tuning starts with a new h.

The reserve shares no point with the model's audit set. A reserve taken from the audit's non-members would teach the
model to hide from this very audit, and the audit would make the defence look better than it is.

The logarithm of h has no lower bound. With a large alpha the model therefore pushes the answers about members beyond
those about non-members, at the cost of wrong labels, and an attacker recognises members by that.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import devices
from defenses.procedure import Procedure
from models.tools import observe_input_ranges

RATE = 1e-3  # of Adam, as in the paper
ROUNDS = 5  # steps of h before each step of f


class Inference(nn.Module):
    """h of section 4.2: posteriors (B, C) and labels (B,) -> (B,) logits of h, with a branch for each of the two."""

    def __init__(self, num_cls: int) -> None:
        super().__init__()
        self.num_cls = num_cls
        self.posterior = linear_layers(num_cls, 1024, 512, 64)
        self.label = linear_layers(num_cls, 512, 64)
        self.joined = nn.Sequential(linear_layers(128, 256, 64), nn.Linear(64, 1))

    def forward(self, posterior: Tensor, labels: Tensor) -> Tensor:
        label_features = self.label(F.one_hot(labels, self.num_cls).float())
        return self.joined(torch.cat([self.posterior(posterior), label_features], dim=1))[:, 0]


def linear_layers(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, a ReLU after each."""
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def gain(members: Tensor, reserve: Tensor) -> Tensor:
    """What h maximises (eq. 5): h's logits for members (B,) and for the reserve (B',) -> ()."""
    return (F.logsigmoid(members).mean() + F.logsigmoid(-reserve).mean()) / 2


def objective(logits: Tensor, labels: Tensor, members: Tensor, weight: float) -> Tensor:
    """What f minimises (algorithm 1): f's logits (B, C), labels (B,), h's logits about the same (B,), alpha -> ()."""
    return F.cross_entropy(logits, labels) + weight * F.logsigmoid(members).mean()


class AdversarialRegularization(Procedure):
    """`weight` is alpha (the paper's lambda)."""

    needs_reserve = True
    steps_on_reserve = True

    def __init__(self, weight: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.weight = weight
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inference = Inference(num_cls)
        self.optimizer = torch.optim.Adam(self.inference.parameters(), RATE)

    def start(self, model, optimizer, examples, batch_size, reserve):
        self.inference.to(reserve.device)
        observe_input_ranges(model, reserve)  # h asks the model before any training step has set them
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
        """ROUNDS steps of h on the model's present answers. members, reserve: network inputs (B, ...), labels (B,)."""
        answers = self._answers(model, torch.cat([members[0], reserve[0]]))
        labels = torch.cat([members[1], reserve[1]])
        member_count = len(members[1])
        for _ in range(ROUNDS):
            inferred = self.inference(answers, labels)
            self.optimizer.zero_grad(set_to_none=True)
            (-gain(inferred[:member_count], inferred[member_count:])).backward()
            self.optimizer.step()

    @staticmethod
    def _answers(model, inputs: Tensor) -> Tensor:
        """Posteriors (B, C) of the model in eval mode, which is left in train mode."""
        model.eval()
        with torch.no_grad(), devices.training_autocast(inputs.device):
            answers = model(inputs).float().softmax(dim=1)
        model.train()
        return answers

    def state_dict(self) -> dict:
        return {"inference": self.inference.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.inference.load_state_dict(state["inference"])
        self.optimizer.load_state_dict(state["optimizer"])

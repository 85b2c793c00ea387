"""Jia, Salem, Backes, Zhang, Gong 2019, MemGuard: defending against black-box membership inference attacks via
adversarial examples (CCS), section 4.

The owner of a model trains a network g of the kind that attackers train: it tells members from other points by a sorted
posterior. Each posterior s is then answered with noise r that takes g just over to the other side: g is then nearly
undecided, but wrong about most points. So with a large budget g's ranking is not erased but reversed, and whoever turns
it round finds members again.

    phase 1   finds r for each s. With z = log s and h the logit of g, gradient descent from e = 0 on
              C1 |h(softmax(z + e))| + C2 relu(largest other entry of z + e - that of the predicted class)
              + c3 |softmax(z + e) - s|_1
              in steps of length STEP, until the sign of h has flipped and the predicted class is still the same. From
              c3 = 0.1 on this is done again with ten times c3, for less noise, until it does not succeed within
              ITERATIONS steps or c3 is 100,000. The last success counts. A posterior without any is left as it is.
    phase 2   adds r with the probability p = min(1, budget / |r|_1), so that the expected distortion p |r|_1 is within
              the budget, and with p = 0 where g is no less decided about s + r than about s.

SELENA's public code leaves phase 2 out, and MemGuard's own draws no noise: it works out an attack's expected accuracy.
Two things differ here. All posteriors are worked on at once, each on its own path. And g sorts what it is given at
every step, where the public codes sort once, so that a sign that has flipped has flipped for the answer that is given.

g is trained on posteriors of members and of as many points that are known not to be members and are in no audit set, as
in the paper, whose defender has a set of non-members of his own. Trained on the audit's non-members, g would know them,
and the audit would make the defence look better than it is.

The paper draws the coin of phase 2 once for each query, so that nobody can average the noise away by asking again. Here
the coin is a hash of the posterior: the same query always gets the same answer. In service the hash needs a secret key.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.adv import linear_layers
from defenses.outputs import OwnersKnowledge

HIDDEN = (256, 128, 64)  # of g, as in the paper
EPOCHS, BATCH, RATE = 50, 128, 1e-3  # of g, trained with Adam; the paper has 400 epochs of SGD
C1, C2 = 1.0, 10.0
C3 = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
STEP, ITERATIONS = 0.1, 300
SMALLEST = 1e-30  # of a posterior, before its logarithm is taken
UNDECIDED = 1e-5  # distance of g from 0.5 within which a posterior needs no noise
AT_ONCE = 16_384  # posteriors in memory


class Inference(nn.Module):
    """h, the logit of g: posteriors (B, C) -> (B,), in whatever order the classes are."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(linear_layers(classes, *HIDDEN), nn.Linear(HIDDEN[-1], 1))

    def forward(self, posteriors: Tensor) -> Tensor:
        return self.layers(posteriors.sort(dim=1, descending=True).values)[:, 0]


def guard(posteriors: np.ndarray, budget: float, owner: OwnersKnowledge) -> np.ndarray:
    """Posteriors (n, C) as MemGuard answers them.

    budget: of the expected L1 distance to the true posterior; owner: must know members and other points.
    """
    network = train_inference(owner)
    noisy = np.concatenate([add_noise(network, part) for part in parts_of(posteriors)])
    chance = chance_of_noise(network, posteriors, noisy, budget)
    return np.where((coins(posteriors) < chance)[:, None], noisy, posteriors)


def parts_of(posteriors: np.ndarray) -> list[np.ndarray]:
    return np.array_split(posteriors, max(1, -(-len(posteriors) // AT_ONCE)))


def train_inference(owner: OwnersKnowledge) -> Inference:
    """g, trained on as many members as others, in float64 so that noise found for all at once is each point's own."""
    rng = np.random.default_rng(owner.seed)
    count = min(len(owner.members), len(owner.others))
    drawn = [rng.permutation(side)[:count] for side in (owner.members, owner.others)]
    inputs = torch.as_tensor(np.concatenate(drawn), dtype=torch.float32, device=owner.device)
    truth = torch.as_tensor(np.repeat([1.0, 0.0], count), dtype=torch.float32, device=owner.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(owner.seed)
        network = Inference(inputs.shape[1]).to(owner.device)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for _ in range(EPOCHS):
        for batch in np.array_split(rng.permutation(2 * count), -(-2 * count // BATCH)):
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(network(inputs[batch]), truth[batch]).backward()
            optimizer.step()
    return network.double().requires_grad_(False)


def membership(network: Inference, posteriors: np.ndarray) -> np.ndarray:
    """(n,) g: how likely the network says that posteriors (n, C) are of members."""
    device = next(network.parameters()).device
    logits = [network(torch.as_tensor(part, device=device)) for part in parts_of(posteriors)]
    return torch.cat(logits).sigmoid().cpu().numpy()


# Phase 1


def add_noise(network: Inference, posteriors: np.ndarray) -> np.ndarray:
    """(n, C) posteriors with the noise of phase 1, those as they were for which there is none."""
    start = torch.as_tensor(posteriors, device=next(network.parameters()).device)
    found = start.clone()
    going = torch.nonzero((network(start).sigmoid() - 0.5).abs() > UNDECIDED)[:, 0]
    for c3 in C3:
        noisy, flipped = descend(network, start[going], c3)
        going = going[flipped]
        found[going] = noisy[flipped]
    return found.cpu().numpy()


def descend(network: Inference, start: Tensor, c3: float) -> tuple[Tensor, Tensor]:
    """Gradient descent with one c3: posteriors (B, C) where it stopped, and (B,) bool whether it succeeded there."""
    label = start.argmax(dim=1, keepdim=True)
    sign = network(start).sign()
    moved = start.clamp_min(SMALLEST).log()
    flipped = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    for _ in range(ITERATIONS):
        going = torch.nonzero(~flipped)[:, 0]
        if not len(going):
            break
        moved[going] -= STEP * direction(network, moved[going], start[going], label[going], c3)
        answers = moved[going].softmax(dim=1)
        same_class = answers.argmax(dim=1) == label[going, 0]
        flipped[going] = same_class & (network(answers) * sign[going] <= 0)
    return moved.softmax(dim=1), flipped


def direction(network: Inference, moved: Tensor, start: Tensor, label: Tensor, c3: float) -> Tensor:
    """(B, C): the loss's gradient at z + e = `moved`, of length 1 for each posterior."""
    moved = moved.detach().requires_grad_()
    answers = moved.softmax(dim=1)
    others = moved.scatter(1, label, -torch.inf).amax(dim=1)
    wrong_class = (others - moved.gather(1, label)[:, 0]).relu()
    loss = C1 * network(answers).abs() + C2 * wrong_class + c3 * (answers - start).abs().sum(dim=1)
    (gradient,) = torch.autograd.grad(loss.sum(), moved)
    return F.normalize(gradient, dim=1)


# Phase 2


def chance_of_noise(network: Inference, posteriors: np.ndarray, noisy: np.ndarray, budget: float) -> np.ndarray:
    """(n,) p: with which probability each posterior is answered with its noise."""
    distortion = np.abs(noisy - posteriors).sum(axis=1)
    before, after = (np.abs(membership(network, answers) - 0.5) for answers in (posteriors, noisy))
    affordable = np.minimum(1, budget / np.maximum(distortion, SMALLEST))
    return np.where(before <= after, 0, affordable)


def coins(posteriors: np.ndarray) -> np.ndarray:
    """(n,) numbers from 0 to below 1, each a hash of the posterior, which is uniform and the same at every query."""
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in posteriors.astype(np.float32)]
    return np.frombuffer(b"".join(digests), dtype=np.uint64) / 2.0**64

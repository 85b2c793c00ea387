"""Abadi et al. 2016, Deep learning with differential privacy (CCS): DP-SGD, by Opacus' optimizer and accountant.

Every step draws its batch by Poisson sampling, clips each sample's gradient to norm CLIP, and adds Gaussian noise of
standard deviation sigma * CLIP to their sum (algorithm 1). Opacus clips, adds noise and accounts for the privacy spent.
The gradients of single samples come from torch.func and not from Opacus, because they must pass through masks,
codebooks and fake quantization.

A model that is trained like this is (epsilon, delta)-differentially private in its members. So is everything computed
from it: a mask, a codebook. The ranges of quantized activations are read from the reserve, on which neither the model
nor its original is trained. Noise and batches are drawn from the run's seed, so that a run can be repeated: whoever
releases a model must keep its seed secret.
"""

import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

import models
from core.errors import UserError
from defenses.procedure import Procedure
from models.tools import observe_input_ranges, prepare_for_single_samples

CLIP = 1.0  # norm of a sample's gradient
DELTA = 1e-5
CHUNK = {"cpu": 16, "cuda": 128}  # samples whose gradients are in memory at once; more would not fit a CPU's cache


# Orders of the Renyi divergence outside Opacus' own range, 1.1 to 63: little noise needs lower ones, much noise higher.
LOWER_ORDERS = tuple(1 + 10 ** (-eighths / 8) for eighths in range(48, 7, -1))  # 1.000001 to 1.1
HIGHER_ORDERS = (63, *(2**power * quarters // 4 for power in range(6, 12) for quarters in range(4, 8)), 4096)


def epsilon(history: list[tuple[float, float, int]], delta: float = DELTA) -> float:
    """Epsilon of releasing all of [(noise multiplier, sampling rate, steps), ...], by Opacus' RDP accountant.

    Renyi accounting (Mironov 2017) adds up what each part spends. Every order gives an upper bound of epsilon, and the
    smallest one counts. Where Opacus finds it at an end of its own range of orders, the orders beyond are tried too.
    """
    accountant = opacus().accountants.RDPAccountant()
    accountant.history = [tuple(part) for part in history]
    bound, order = _smallest_bound(accountant, delta, accountant.DEFAULT_ALPHAS)
    if order == min(accountant.DEFAULT_ALPHAS):
        bound, _ = _smallest_bound(accountant, delta, LOWER_ORDERS)
    if order == max(accountant.DEFAULT_ALPHAS):
        bound, _ = _smallest_bound(accountant, delta, HIGHER_ORDERS)
    return bound


def _smallest_bound(accountant, delta: float, orders: Sequence[float]) -> tuple[float, float]:
    """The smallest upper bound of epsilon that these orders give, and the order that gives it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # of an end of the range: see `epsilon`
        bound, order = accountant.get_privacy_spent(delta=delta, alphas=list(orders))
    return float(bound), order


def schedule(examples: int, batch_size: int) -> tuple[float, int]:
    """Each point's chance to be in a batch, and the batches of an epoch."""
    return min(1.0, batch_size / examples), math.ceil(examples / batch_size)


def opacus():
    """The module; UserError where it is not installed."""
    try:
        import opacus.accountants
        import opacus.optimizers
        import opacus.validators
    except ImportError as error:
        raise UserError("--defend dp needs Opacus: pip install -r requirements.txt") from error
    return opacus


def sample_gradients(model, inputs: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Each sample's gradient of its own cross-entropy, {parameter: (B, *shape)}, and the losses (B,)."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if len(labels) == 0:  # Poisson sampling may take no point; the step then consists of noise alone
        none = {name: parameter.new_zeros(0, *parameter.shape) for name, parameter in trained.items()}
        return none, torch.zeros(0, device=inputs.device)

    def loss(parameters, sample, label):
        value = F.cross_entropy(functional_call(model, parameters, (sample[None],)), label[None])
        return value, value

    for_each_sample = vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0), randomness="different")
    with warnings.catch_warnings():
        # vmap has no batched form of fake quantization, computes it sample by sample and warns of that
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return for_each_sample(trained, inputs, labels)


class DPSGD(Procedure):
    """`noise` is sigma, the noise multiplier."""

    # Only int8 needs this: activation ranges are read from the reserve without noise, so the original must not train on
    # it. Which compressions a run will get is not known when its original is trained: every run has the reserve.
    needs_reserve = True

    def __init__(self, noise: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.noise = noise

    @staticmethod
    def check(model):
        """UserError where the network shares statistics between samples, or looks at a batch as a whole."""
        if getattr(model, "inspects_batches", False):
            raise UserError("--defend dp cannot train this network sample by sample: use gpt2, or leave dp out")
        if errors := opacus().validators.ModuleValidator.validate(model, strict=False):
            reason = str(errors[0]).split(". ")[0]
            others = " or ".join(name for name in models.WITHOUT_BATCH_NORM if name not in models.FOR_TEXT)
            raise UserError(
                f"--defend dp cannot train this network ({reason}): use --model_name {others}, or leave dp out"
            )

    def start(self, model, optimizer, examples, batch_size, reserve):
        if reserve is not None:
            observe_input_ranges(model, reserve)
        prepare_for_single_samples(model)
        self.generator = torch.Generator(next(model.parameters()).device)
        self.rate, self.steps = schedule(examples, batch_size)
        return opacus().optimizers.DPOptimizer(
            optimizer,
            noise_multiplier=self.noise,
            max_grad_norm=CLIP,
            expected_batch_size=self.rate * examples,
            generator=self.generator,
        )

    def account(self, examples, batch_size, epochs, earlier):
        """The model's `privacy`: all training that it is made from, and its epsilon.

        Both are None where the model was made from one that was trained without noise.
        """
        rate, steps = schedule(examples, batch_size)
        history = None if earlier is None else [*earlier, [self.noise, rate, epochs * steps]]
        spent = None if history is None else epsilon(history)
        return {"privacy": {"epsilon": spent, "delta": DELTA, "history": history}}

    def begin_epoch(self, generator):
        """Seed the epoch's noise: every epoch has its own, and an epoch that is repeated has the same again."""
        self.generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def batches(self, order, batch_size, generator):
        """Poisson sampling: each step takes every point with the same chance, whatever the other steps took."""
        return [(torch.rand(len(order), generator=generator) < self.rate).nonzero()[:, 0] for _ in range(self.steps)]

    def step(self, model, optimizer, inputs, labels, reserve):
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=inputs.device)  # inputs may be tokens, which are whole numbers
        size = CHUNK.get(inputs.device.type, CHUNK["cpu"])
        chunks = list(zip(inputs.split(size), labels.split(size), strict=True))
        for number, chunk in enumerate(chunks):
            gradients, losses = sample_gradients(model, *chunk)
            for name, gradient in gradients.items():
                model.get_parameter(name).grad_sample = gradient
            is_last = number + 1 == len(chunks)
            optimizer.signal_skip_step(do_skip=not is_last)  # earlier chunks only add to the sum of clipped gradients
            optimizer.step()
            total += losses.detach().sum()
        return total / max(1, len(labels))

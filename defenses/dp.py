"""Abadi et al. 2016, Deep learning with differential privacy (CCS): DP-SGD, by Opacus' optimizer and accountant.

Every step draws its batch by Poisson sampling, clips each sample's gradient to norm CLIP, and adds Gaussian noise of
standard deviation sigma * CLIP to their sum (algorithm 1). Opacus clips, adds noise and accounts; gradients of single
samples come from torch.func, for they must reach through masks, codebooks and fake quantization.

What is trained like this is (epsilon, delta)-differentially private in its members. A mask or a codebook computed from
such a model is too; the ranges of quantized activations are read off the reserve, which neither the model nor its
original is trained on. Noise and batches are drawn from the run's seed, so that a run can be repeated: to release a
model, keep its seed secret.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

import models
from core.errors import UserError
from defenses.procedure import Procedure
from quantization import int8

CLIP = 1.0  # norm of a sample's gradient
DELTA = 1e-5
CHUNK = {"cpu": 16, "cuda": 128}  # samples whose gradients are held at once; more no longer fit a CPU's cache


def epsilon(history: list[tuple[float, float, int]], delta: float = DELTA) -> float:
    """Epsilon of releasing all of [(noise multiplier, sampling rate, steps), ...], by Opacus' RDP accountant.

    Renyi accounting (Mironov 2017) adds up what each part spends.
    """
    accountant = opacus().accountants.RDPAccountant()
    accountant.history = [tuple(part) for part in history]
    return float(accountant.get_epsilon(delta))


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
    if len(labels) == 0:  # Poisson sampling may take nobody, and the noise is added all the same
        return {
            name: parameter.new_zeros(0, *parameter.shape) for name, parameter in trained.items()
        }, inputs.new_zeros(0)

    def loss(parameters, sample, label):
        found = F.cross_entropy(functional_call(model, parameters, (sample[None],)), label[None])
        return found, found

    each = vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0), randomness="different")
    with warnings.catch_warnings():  # of fake quantization, which vmap does sample by sample
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return each(trained, inputs, labels)


class DPSGD(Procedure):
    """`noise` is sigma, the noise multiplier."""

    needs_reserve = True  # of int8 alone: its original must not have been trained on what it shows without noise

    def __init__(self, noise: float, *, num_cls: int, seed: int) -> None:
        super().__init__()
        self.noise = noise

    @staticmethod
    def check(model):
        """UserError where the network shares statistics between samples."""
        if errors := opacus().validators.ModuleValidator.validate(model, strict=False):
            reason = str(errors[0]).split(". ")[0]
            others = " or ".join(models.WITHOUT_BATCH_NORM)
            raise UserError(
                f"--defend dp cannot train this network ({reason}): use --model_name {others}, or leave dp out"
            )

    def start(self, model, optimizer, examples, batch_size, reserve):
        if reserve is not None:
            int8.set_ranges(model, reserve)
        for module in model.modules():
            if hasattr(module, "for_single_samples"):
                module.for_single_samples()
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
        """The history of the model's releases and its epsilon, None where it was made from a model without noise."""
        rate, steps = schedule(examples, batch_size)
        history = None if earlier is None else [*earlier, [self.noise, rate, epochs * steps]]
        spent = None if history is None else epsilon(history)
        return {"privacy": {"epsilon": spent, "delta": DELTA, "history": history}}

    def begin_epoch(self, generator):
        """Another noise in each epoch, the same where an epoch is repeated."""
        self.generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def batches(self, order, batch_size, generator):
        """Poisson sampling: each step takes every point with the same chance, whatever the other steps took."""
        return [(torch.rand(len(order), generator=generator) < self.rate).nonzero()[:, 0] for _ in range(self.steps)]

    def step(self, model, optimizer, inputs, labels, reserve):
        optimizer.zero_grad(set_to_none=True)
        total = inputs.new_zeros(())
        size = CHUNK.get(inputs.device.type, 16)
        chunks = list(zip(inputs.split(size), labels.split(size), strict=True))
        for number, chunk in enumerate(chunks):
            gradients, losses = sample_gradients(model, *chunk)
            for name, gradient in gradients.items():
                model.get_parameter(name).grad_sample = gradient
            optimizer.signal_skip_step(do_skip=number + 1 < len(chunks))  # until the batch is whole, only add up
            optimizer.step()
            total += losses.detach().sum()
        return total / max(1, len(labels))

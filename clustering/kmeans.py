"""Weight clustering: the weights of a layer share a codebook of a few values, and only those values are fine-tuned.

Han et al. 2016, "Deep Compression" (arXiv:1510.00149), §3: one-dimensional k-means per layer (§3.1, §3.2), then
gradient descent on the centroids, a centroid's gradient being the sum of its weights' gradients (§3.3, eq. 3). A layer
is stored as one code of log2(k) bits per weight and a codebook of k centroids.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.tools import assert_equal_outputs, load_exactly, take, unchanged_tensors, weighted_layers

CLUSTERS = tuple(2**bit for bit in range(1, 9))
MAX_ROUNDS = 100_000  # Lloyd's algorithm ends by itself; this guards against a cycle through rounding


class Lookup(torch.autograd.Function):
    """codebook (k,), codes uint8 (any shape) -> codebook[codes], laid out as codes; its gradient is summed per code.

    Plain indexing's backward takes twenty times as long. The sums (eq. 3) run in float64: float32 loses digits over
    millions of terms, and on a GPU, where their order is not fixed, its result would change from run to run.
    """

    @staticmethod
    def forward(ctx, codebook: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.clusters = len(codebook)
        weight = torch.empty_like(codes, dtype=codebook.dtype)
        torch.index_select(codebook, 0, in_memory_order(codes).int(), out=in_memory_order(weight))
        return weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        if gradient.stride() != codes.stride():
            gradient = torch.empty_like(codes, dtype=gradient.dtype).copy_(gradient)
        sums = spread_sums if gradient.is_cuda else chunked_sums
        return sums(in_memory_order(codes), in_memory_order(gradient), ctx.clusters).to(gradient.dtype), None


def chunked_sums(codes: Tensor, terms: Tensor, clusters: int, chunk: int = 2**18) -> Tensor:
    """Sums of terms (n,) per code (n,) below `clusters`, in float64, for CPUs: (clusters,).

    Chunks stay in the cache and their float64 copies reuse its memory; one copy of all terms costs more than the sums.
    """
    parts = zip(codes.split(chunk), terms.split(chunk), strict=True)
    return sum(torch.bincount(code, term.double(), minlength=clusters) for code, term in parts)


def spread_sums(codes: Tensor, terms: Tensor, clusters: int, copies: int = 4096) -> Tensor:
    """The same for GPUs.

    torch.bincount makes the host wait for the largest code. Thousands of threads adding to a few sums would wait for
    each other, so each adds to one of `copies` sets of sums.
    """
    place = torch.arange(len(codes), device=codes.device).remainder_(copies).mul_(clusters).add_(codes)
    sums = torch.zeros(copies * clusters, dtype=torch.float64, device=terms.device)
    return sums.scatter_add_(0, place, terms.double()).view(copies, clusters).sum(dim=0)


def in_memory_order(tensor: Tensor) -> Tensor:
    """A dense tensor's elements as (n,), without the copy that `flatten` makes of a channels_last tensor."""
    return tensor.as_strided((tensor.numel(),), (1,))


class Clustered(nn.Module):
    """A parametrisation: the parameter is the codebook (k,), the fixed codes say which value each weight takes."""

    def __init__(self, clusters: int) -> None:
        super().__init__()
        self.clusters = clusters
        self.register_buffer("codes", torch.empty(0, dtype=torch.uint8))
        self.plain = False

    def for_single_samples(self) -> None:
        """Look weights up by plain indexing, which torch.func can differentiate for each sample of a batch."""
        self.plain = True

    def right_inverse(self, weight: Tensor) -> Tensor:
        """weight -> codebook; remembers the codes. `register_parametrization` calls it once, on the float weight."""
        codebook, codes = kmeans(weight.detach().cpu().numpy().ravel(), self.clusters)
        self.codes = torch.from_numpy(codes).view(weight.shape).to(weight.device)
        return torch.from_numpy(codebook).to(weight)

    def forward(self, codebook: Tensor) -> Tensor:
        return codebook[self.codes.int()] if self.plain else Lookup.apply(codebook, self.codes)


def kmeans(values: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster values (n,) on a line -> codebook (clusters,) float32 ascending, codes (n,) uint8. No randomness.

    Lloyd's algorithm from equal steps between the extremes (the paper's choice) and from equal shares of the values,
    whichever ends with the smaller squared error: the first alone ends up to a quarter worse in small layers.
    """
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])  # sums[i] = ordered[:i].sum()
    starts = (
        np.linspace(ordered[0], ordered[-1], clusters),
        np.quantile(ordered, (np.arange(clusters) + 0.5) / clusters),
    )
    _, centroids = max((lloyd(ordered, sums, start) for start in starts), key=lambda outcome: outcome[0])
    codes = np.searchsorted(_middles(centroids), values, side="right")
    return centroids.astype(np.float32), codes.astype(np.uint8)


def lloyd(ordered: np.ndarray, sums: np.ndarray, centroids: np.ndarray) -> tuple[float, np.ndarray]:
    """Move ascending centroids (k,) to the means of their values until nothing changes: (explained, centroids).

    Clusters of sorted values are intervals, so a round is one binary search per boundary, not a pass over the values.
    A centroid without values keeps its place. The squared error is the values' sum of squares less `explained`.
    """
    edges = np.zeros(0)
    for _ in range(MAX_ROUNDS):
        previous = edges
        edges = np.concatenate([[0], np.searchsorted(ordered, _middles(centroids)), [len(ordered)]])
        sizes, totals = np.diff(edges), np.diff(sums[edges])
        if np.array_equal(edges, previous):
            break
        centroids = np.where(sizes > 0, totals / np.maximum(sizes, 1), centroids)
    return float((totals**2 / np.maximum(sizes, 1)).sum()), centroids


def _middles(centroids: np.ndarray) -> np.ndarray:
    return (centroids[1:] + centroids[:-1]) / 2


def prepare(model: nn.Module, clusters: int) -> nn.Module:
    """A copy whose conv and linear weights take at most `clusters` values a layer; only these values are trainable.

    Batch-norm statistics go on moving in train mode: they are no parameters.
    Raises ValueError unless clusters is a power of two from 2 to 256.
    """
    if clusters not in CLUSTERS:
        raise ValueError(f"the number of clusters must be 2, 4, 8, ... or 256, not {clusters!r}")
    model = copy.deepcopy(model).requires_grad_(False)
    for layer in weighted_layers(model).values():
        parametrize.register_parametrization(layer, "weight", Clustered(clusters))
        layer.parametrizations.weight.original.requires_grad_(True)
    return model


def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `<name>.codes`, log2(k) bits a weight, and `<name>.codebook` (k,); the rest as it is."""
    tensors = unchanged_tensors(prepared)
    for name, layer in weighted_layers(prepared).items():
        codebook = layer.parametrizations.weight.original.detach().cpu().clone()
        codes = layer.parametrizations.weight[0].codes.cpu().numpy().reshape(-1, 1)  # (n, 1)
        bit = CLUSTERS.index(len(codebook)) + 1
        bits = np.unpackbits(codes, axis=1, count=bit, bitorder="little")  # (n, bit)
        tensors[f"{name}.codes"] = torch.from_numpy(np.packbits(bits, bitorder="little"))
        tensors[f"{name}.codebook"] = codebook
    return tensors


def unpack(skeleton: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The clustered model, in eval mode: a copy of the float network `skeleton` filled from `pack`'s tensors.

    Raises ValueError naming the first tensor that does not fit.
    """
    state = dict(tensors)
    for name, layer in weighted_layers(skeleton).items():
        shape, numel = layer.weight.shape, layer.weight.numel()
        codebook = take(state, f"{name}.codebook", layer.weight.dtype)
        if codebook.dim() != 1 or len(codebook) not in CLUSTERS:
            raise ValueError(f"{name}.codebook has shape {tuple(codebook.shape)}, not 2, 4, 8, ... or 256 values")
        bit = CLUSTERS.index(len(codebook)) + 1
        packed = take(state, f"{name}.codes", torch.uint8, (math.ceil(numel * bit / 8),))
        bits = np.unpackbits(packed.numpy(), count=numel * bit, bitorder="little").reshape(numel, bit)
        codes = np.packbits(bits, axis=1, bitorder="little")  # (n, 1)
        state[f"{name}.weight"] = codebook[torch.from_numpy(codes).int()].view(shape)
    return load_exactly(copy.deepcopy(skeleton), state).eval()


def verify(prepared: nn.Module, restored: nn.Module, clusters: int, images: Tensor) -> str:
    """Assert the stated property and equal outputs for images (N, 3, 32, 32); returns one line that says so."""
    layers = weighted_layers(restored)
    most = 0
    for name, source in weighted_layers(prepared).items():
        weight = layers[name].weight.detach().cpu()
        distinct = len(weight.unique())
        assert distinct <= clusters, f"{name}: {distinct} distinct weights, more than {clusters}"
        assert torch.equal(weight, source.weight.detach().cpu()), f"{name}: the restored weights differ"
        most = max(most, distinct)
    assert_equal_outputs(prepared, restored, images)
    return (
        f"clustering {clusters}: at most {most} distinct weights in each of {len(layers)} layers; "
        f"restored outputs equal on {len(images)} images"
    )

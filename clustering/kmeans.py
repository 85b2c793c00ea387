"""Weight clustering: the weights of a layer share a codebook of a few values, and only those values are fine-tuned.

Han et al. 2016, "Deep Compression" (arXiv:1510.00149), §3: one-dimensional k-means per layer (§3.1, §3.2), then
gradient descent on the centroids, where a centroid's gradient is the sum of its weights' gradients (§3.3, eq. 3). A
layer is stored as one code of log2(k) bits per weight and a codebook of k centroids.
"""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.tools import assert_equal_outputs, load_exactly, pop_checked, unchanged_tensors, weighted_layers

CLUSTERS = tuple(2**bit for bit in range(1, 9))
EXPECTED_DEGREE = f"a number of clusters 2, 4, ..., {CLUSTERS[-1]}"
MAX_ROUNDS = 100_000  # Lloyd's algorithm ends by itself, unless rounding makes it go round in a cycle


def parse_degree(text: str) -> int:
    """The number of clusters that `prepare` takes; ValueError where the text is none."""
    return _check_clusters(int(text))


def command(clusters: int) -> str:
    """The script and the flags that cluster to so many values."""
    return f"clustering/clustering.py --bit {CLUSTERS.index(clusters) + 1}"


def _check_clusters(clusters: int) -> int:
    if clusters not in CLUSTERS:
        raise ValueError(f"the number of clusters must be 2, 4, 8, ... or 256, not {clusters!r}")
    return clusters


class Lookup(torch.autograd.Function):
    """codebook (k,), codes uint8 (any shape) -> codebook[codes], laid out in memory as the codes are.

    Its backward sums the gradients of all weights of one code (eq. 3), twenty times as fast as that of plain indexing.
    The sums run in float64: float32 loses digits over millions of terms, and on a GPU, where the order of terms is not
    fixed, its result would change from run to run.
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

    The float64 copy of a chunk stays in the cache; a float64 copy of all terms would cost more than the sums.
    """
    parts = zip(codes.split(chunk), terms.split(chunk), strict=True)
    return sum(torch.bincount(code, term.double(), minlength=clusters) for code, term in parts)


def spread_sums(codes: Tensor, terms: Tensor, clusters: int, copies: int = 4096) -> Tensor:
    """Sums of terms (n,) per code (n,) below `clusters`, in float64, for GPUs: (clusters,).

    torch.bincount would make the host wait for the largest code. Thousands of threads that add to the same few sums
    would wait for each other, so each adds to one of `copies` sets of sums.
    """
    place = torch.arange(len(codes), device=codes.device).remainder_(copies).mul_(clusters).add_(codes)
    sums = torch.zeros(copies * clusters, dtype=torch.float64, device=terms.device)
    return sums.scatter_add_(0, place, terms.double()).view(copies, clusters).sum(dim=0)


def in_memory_order(tensor: Tensor) -> Tensor:
    """The elements of a dense tensor as (n,), without the copy that `flatten` makes of a channels_last tensor."""
    return tensor.as_strided((tensor.numel(),), (1,))


class Clustered(nn.Module):
    """A parametrisation: the codebook (k,) is the parameter, and the fixed codes say which value each weight takes."""

    def __init__(self, clusters: int) -> None:
        super().__init__()
        self.clusters = clusters
        self.register_buffer("codes", torch.empty(0, dtype=torch.uint8))
        self.plain_indexing = False

    def prepare_for_single_samples(self) -> None:
        """Look weights up by plain indexing, which torch.func can differentiate for each sample of a batch."""
        self.plain_indexing = True

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Cluster a float weight: keep its codes, return its codebook. `register_parametrization` calls this once."""
        codebook, codes = kmeans(weight.detach().cpu().numpy().ravel(), self.clusters)
        self.codes = torch.from_numpy(codes).view(weight.shape).to(weight.device)
        return torch.from_numpy(codebook).to(weight)

    def forward(self, codebook: Tensor) -> Tensor:
        return codebook[self.codes.int()] if self.plain_indexing else Lookup.apply(codebook, self.codes)


def kmeans(values: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster values (n,) on a line -> codebook (clusters,) float32 ascending, codes (n,) uint8. No randomness.

    Lloyd's algorithm starts once from equal steps between the extremes (the paper's choice) and once from equal shares
    of the values. The result with the smaller squared error is taken: in small layers the first start alone ends up to
    a quarter worse.
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
    """Move ascending centroids (k,) to the means of their values until nothing changes.

    ordered: (n,) the values, ascending; sums: (n + 1,) the sum of the values before each. Returns the sum of squares
    that the centroids explain, which is the values' sum of squares less the squared error, and the centroids.

    Clusters of sorted values are intervals, so a round is one binary search per boundary, not a pass over the values.
    A centroid without values keeps its place.
    """
    edges = np.zeros(0)
    for _ in range(MAX_ROUNDS):
        previous = edges
        edges = np.concatenate([[0], np.searchsorted(ordered, _middles(centroids)), [len(ordered)]])
        sizes = np.diff(edges)
        totals = np.diff(sums[edges])
        if np.array_equal(edges, previous):
            break
        centroids = np.where(sizes > 0, totals / np.maximum(sizes, 1), centroids)
    return float((totals**2 / np.maximum(sizes, 1)).sum()), centroids


def _middles(centroids: np.ndarray) -> np.ndarray:
    return (centroids[1:] + centroids[:-1]) / 2


def prepare(model: nn.Module, clusters: int) -> nn.Module:
    """A copy whose layers' weights take at most `clusters` values a layer; only these values are trainable.

    The statistics of batch norm are no parameters and go on moving in train mode.
    Raises ValueError unless clusters is a power of two from 2 to 256.
    """
    _check_clusters(clusters)
    model = copy.deepcopy(model).requires_grad_(False)
    for layer in weighted_layers(model).values():
        parametrize.register_parametrization(layer, "weight", Clustered(clusters))
        layer.parametrizations.weight.original.requires_grad_(True)
    return model


def pack(prepared: nn.Module) -> dict[str, Tensor]:
    """Per layer `<name>.codes`, log2(k) bits a weight, and `<name>.codebook` (k,); all other tensors as they are."""
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
        codebook = pop_checked(state, f"{name}.codebook", layer.weight.dtype)
        if codebook.dim() != 1 or len(codebook) not in CLUSTERS:
            raise ValueError(f"{name}.codebook has shape {tuple(codebook.shape)}, not 2, 4, 8, ... or 256 values")
        bit = CLUSTERS.index(len(codebook)) + 1
        packed = pop_checked(state, f"{name}.codes", torch.uint8, (math.ceil(numel * bit / 8),))
        bits = np.unpackbits(packed.numpy(), count=numel * bit, bitorder="little").reshape(numel, bit)
        codes = np.packbits(bits, axis=1, bitorder="little")  # (n, 1)
        state[f"{name}.weight"] = codebook[torch.from_numpy(codes).int()].view(shape)
    return load_exactly(copy.deepcopy(skeleton), state).eval()


def verify(prepared: nn.Module, restored: nn.Module, clusters: int, inputs: Tensor) -> str:
    """Assert at most so many distinct weights a layer and equal outputs for network inputs (N, ...).

    Returns one line that says so. `restored` is what `unpack` made of the tensors of `prepared`.
    """
    layers = weighted_layers(restored)
    most_values = 0
    for name, source in weighted_layers(prepared).items():
        weight = layers[name].weight.detach().cpu()
        distinct = len(weight.unique())
        assert distinct <= clusters, f"{name}: {distinct} distinct weights, more than {clusters}"
        assert torch.equal(weight, source.weight.detach().cpu()), f"{name}: the restored weights differ"
        most_values = max(most_values, distinct)
    assert_equal_outputs(prepared, restored, inputs)
    return (
        f"clustering {clusters}: at most {most_values} distinct weights in each of {len(layers)} layers; "
        f"restored outputs equal on {len(inputs)} points"
    )

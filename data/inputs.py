"""From what is stored to network input: one transform for every query, one augmentation for training.

Membership inference compares members with non-members, so both must reach the model by the same path:
`to_input` is the only way an image is ever queried, and `augmented_batch` is called by training alone.
Rows of features, (N, F), take the same way: they reach the network as they are, and no augmentation changes them.
"""

import torch
import torch.nn.functional as F

PAD = 4  # pixels of zero padding on each side before the random crop (PROTOCOL §2)


def to_input(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-2, 2], channels last in memory. No randomness."""
    if images.dim() == 2:
        return images.float()
    return images.permute(0, 3, 1, 2).float().sub_(127.5).div_(63.75)


def pad(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, H + 2 PAD, W + 2 PAD, 3), done once per training set rather than once per batch."""
    return images if images.dim() == 2 else F.pad(images, (0, 0, PAD, PAD, PAD, PAD))


def draw_augmentation(n: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """(n, 3) int64: row offset, column offset and whether to mirror, drawn independently for each image."""
    offsets = torch.randint(0, 2 * PAD + 1, (n, 2), generator=generator)
    mirror = torch.randint(0, 2, (n, 1), generator=generator) if flip else torch.zeros(n, 1, dtype=torch.int64)
    return torch.cat([offsets, mirror], dim=1)


def no_augmentation(n: int) -> torch.Tensor:
    """(n, 3) int64: the draws that leave every image as it is."""
    return torch.tensor([[PAD, PAD, 0]]).expand(n, 3)


def augmented_batch(padded: torch.Tensor, index: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Random crop and horizontal flip of `padded[index]` as one gather; (B, H, W, 3) uint8 like the stored images.

    padded: (N, H + 2 PAD, W + 2 PAD, 3) from `pad`; index: (B,); draws: (B, 3) from `draw_augmentation`.
    """
    if padded.dim() == 2:
        return padded[index]
    height, width = padded.shape[1] - 2 * PAD, padded.shape[2] - 2 * PAD
    row = draws[:, 0:1] + torch.arange(height, device=index.device)  # (B, H)
    column = torch.arange(width, device=index.device).expand(len(index), width)
    column = draws[:, 1:2] + torch.where(draws[:, 2:3].bool(), width - 1 - column, column)  # (B, W)
    return padded[index[:, None, None], row[:, :, None], column[:, None, :]]

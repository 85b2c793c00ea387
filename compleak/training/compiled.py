"""torch.compile for the forward and backward pass of training: quicker steps, after a minute or two of compiling.

The last bits differ from those of training without it, so that it is part of what a model is made from.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from core.errors import UserError, one_line

BACKEND = "inductor"  # torch's own; it needs a C++ compiler for a processor, and Triton for a GPU


def compiled(model: nn.Module) -> nn.Module:
    """The model with compiled passes; parameters and buffers are the model's own.

    Batches have at most two sizes, and each is compiled for itself. What earlier trainings compiled is forgotten, since
    torch goes on without compiling once the same code has been compiled for several models.
    """
    with compile_errors_as_user_errors():
        torch.compiler.reset()
        return torch.compile(model, dynamic=False, backend=BACKEND)


@contextlib.contextmanager
def compile_errors_as_user_errors() -> Iterator[None]:
    """UserError, in one line, where torch cannot compile on this machine: it finds out in the first step."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise UserError(
            f"--compile: torch cannot compile here ({one_line(error)}): install a C++ compiler such as g++, or leave "
            "--compile out"
        ) from error

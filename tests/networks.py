"""Small networks, batches and fine-tuning that the tests of models, compressions and defences share."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models

WIDTH = 0.125


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread: more do not speed up such small layers, and slow them down where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def float_model(name="resnet18", width=WIDTH):
    """A network as training leaves it: batch-norm statistics, gammas and betas away from their initial values."""
    torch.manual_seed(1)
    model = models.build(name, 10, width)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        model.train()(torch.randn(32, 3, 32, 32))
    return model.eval()


def batch(seed, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % 10


def optimizer_for(prepared, lr=1e-3):
    trained = [p for p in prepared.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr, momentum=0.9, weight_decay=5e-4)


def train(prepared, steps=3, *, optimizer=None, first=0, autocast=False):
    """Take real fine-tuning steps; batch number i is the same in every call."""
    optimizer = optimizer or optimizer_for(prepared)
    prepared.train()
    for step in range(first, first + steps):
        images, labels = batch(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(prepared(images), labels)
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    return prepared.eval()


def seen_one_batch(prepared):
    """Show the model a training batch without training it: quantization needs one for its input ranges."""
    with torch.no_grad():
        prepared.train()(batch(0)[0])
    return prepared.eval()


def through_a_file(tensors):
    file = io.BytesIO()
    torch.save(tensors, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def restored_from(technique, prepared, name="resnet18"):
    return technique.unpack(models.build(name, 10, WIDTH), through_a_file(technique.pack(prepared)))


def file_bytes(tensors):
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.tell()

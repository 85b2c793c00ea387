"""The networks: sizes known from the literature, shapes at every width, and the form the compressions rely on."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from networks import WIDTH, one_thread  # noqa: F401
from torch import nn

import models
from models import densenet


@pytest.mark.parametrize(("width", "side"), [(0.05, None), (WIDTH, 32), (0.3, 84)])
@pytest.mark.parametrize("name", models.FOR_IMAGES)
def test_any_width_maps_images_of_any_size_from_the_least_on_to_logits(name, width, side):
    model = models.build(name, 7, width)
    side = side or models.NETWORKS[name].least_side
    assert model(torch.randn(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # torchvision's counts for ten classes, less: 7x7 stems of ResNet and DenseNet, three linear layers and biases of
    # convolutions of VGG
    [
        ("resnet18", 11_181_642 - 64 * 3 * (49 - 9)),
        ("resnet18_gn", 11_181_642 - 64 * 3 * (49 - 9)),
        ("vgg16_bn", 14_723_136 - 4_224 + 512 * 10 + 10),
        ("mobilenetv2", 2_236_682),
        ("densenet121", 6_964_106 - 64 * 3 * (49 - 9)),
    ],
)
def test_full_width_has_the_published_number_of_parameters(name, parameters, monkeypatch):
    monkeypatch.setattr("models.densenet.BLOCKS", (6, 12, 24, 16))  # tests have a shorter one
    with torch.device("meta"):
        model = models.build(name, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", models.FOR_IMAGES)
def test_every_convolution_but_those_before_a_concatenation_is_directly_followed_by_its_normalisation(name):
    model = models.build(name, 10, WIDTH)
    pairs = [
        (first, second)
        for parent in model.modules()
        if isinstance(parent, nn.Sequential)
        for first, second in pairwise(parent.children())
        if isinstance(first, nn.Conv2d) and not isinstance(second, nn.AvgPool2d)
    ]
    dense_layers_and_transitions = sum(densenet.BLOCKS) + 3
    alone = dense_layers_and_transitions if name == "densenet121" else 0
    assert len(pairs) + alone == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    kind, channels = (nn.GroupNorm, "num_channels") if name == "resnet18_gn" else (nn.BatchNorm2d, "num_features")
    assert all(isinstance(norm, kind) and getattr(norm, channels) == conv.out_channels for conv, norm in pairs)


@pytest.mark.parametrize("name", models.FOR_IMAGES)
def test_the_seed_decides_the_initial_weights_and_training_has_no_randomness_of_its_own(name):
    def logits():
        torch.manual_seed(3)
        model = models.build(name, 10, WIDTH).train()
        images = torch.randn(4, 3, 32, 32)
        torch.seed()
        return model(images)

    assert torch.equal(logits(), logits())


@pytest.mark.parametrize("name", models.FOR_IMAGES)
def test_the_loss_reaches_every_parameter(name):
    torch.manual_seed(0)
    model = models.build(name, 10, WIDTH).train()
    model(torch.randn(8, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_the_resnet_keeps_the_stem_stride_at_one_and_the_max_pool():
    stem = models.build("resnet18", 10, WIDTH)[0]
    assert stem[0](torch.randn(1, 3, 32, 32)).shape[-2:] == (32, 32)
    assert stem(torch.randn(1, 3, 32, 32)).shape[-2:] == (16, 16)


def test_the_mobilenet_keeps_four_by_four_pixels_to_the_end():
    features = models.build("mobilenetv2", 10, WIDTH)[0]
    assert features(torch.randn(1, 3, 32, 32)).shape[-2:] == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("resnet50", 10), "resnet50"),
        (("resnet18", 1), "num_classes"),
        (("resnet18", 10.0), "num_classes"),
        (("resnet18", 10, 0), "width"),
        (("resnet18", 10, -1.0), "width"),
        (("resnet18", 10, float("nan")), "width"),
        (("resnet18", 10, "wide"), "width"),
        (("resnet18", 10, 1.0, 446), "resnet18 takes images"),
        (("mlp", 10), "features"),
        (("mlp", 10, 1.0, 0), "features"),
        (("resnet18", 10, 1.0, None, Path("folder")), "resnet18 starts from no pretrained folder"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        models.build(*arguments)

"""A folded network computes the same and faster, and nothing of the network that was given changes."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.profiler import profile

from wsss.folding import folded
from wsss.network import build
from wsss.presets import tiny


def network(encoder: str, shape_cue: str = "on"):
    torch.manual_seed(0)
    made = build(replace(tiny(), encoder=encoder, encoder_weights="none", shape_cue=shape_cue), 4, pretrained=False)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: no two channels alike
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made.eval()


@pytest.mark.parametrize(
    ("encoder", "shape_cue"),
    [("test_efficientnet", "on"), ("tf_efficientnet_lite0", "none"), ("resnet18", "on"), ("wrn38", "on")],
)
def test_a_folded_network_computes_the_same(encoder, shape_cue):
    plain = network(encoder, shape_cue)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    image = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        expected, found = plain(image), folded(plain)(image)
        stages = zip(folded(plain).encoder(image), plain.encoder(image), strict=True)
    for ours, theirs in ((found.logits, expected.logits), (found.image_scores, expected.image_scores), *stages):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_of_the_default_encoder_every_normalisation_is_folded():
    modules = folded(network("tf_efficientnet_lite0")).modules()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)


def test_one_thread_computes_convolutions_as_fast_as_several():
    """torch has another kernel for those of 1x1 where there is one thread, which takes twice as long."""
    made, image, before = network("tf_efficientnet_lite0"), torch.rand(1, 3, 192, 192), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kernels = [called(made, image), called(folded(made), image)]
    finally:
        torch.set_num_threads(before)
    assert ["aten::_slow_conv2d_forward" in names for names in kernels] == [True, False]


@torch.inference_mode()
def called(network: nn.Module, image: torch.Tensor) -> set[str]:
    """The operations that a pass takes."""
    with profile() as seen:
        network(image)
    return {event.key for event in seen.key_averages()}

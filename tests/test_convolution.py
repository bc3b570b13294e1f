"""The encoders' convolutions: torch's values and gradients, with the norm after them, whichever way they take."""

from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from wsss import convolution, fused
from wsss.convolution import Convolution, FrozenNorm, fold_norms
from wsss.encoders import build_encoder
from wsss.fused import depthwise


def normalised(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution and a frozen norm of no two channels alike."""
    norm = nn.BatchNorm2d(conv.out_channels).eval().requires_grad_(False)
    for value in (norm.weight, norm.running_var):
        nn.init.uniform_(value, 0.5, 2)
    for value in (norm.bias, norm.running_mean):
        nn.init.uniform_(value, -1, 1)
    return nn.Sequential(conv, norm)


def gradients(pair: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """The output and what a weighted sum of it teaches the image and the convolution."""
    x = x.clone().requires_grad_()
    out = pair(x)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), [x, *pair[0].parameters()])]


CONVOLUTIONS = {
    "1x1": nn.Conv2d(6, 8, 1, bias=False),
    "3x3 with a bias": nn.Conv2d(6, 8, 3, padding=1),
    "strided": nn.Conv2d(6, 8, 3, 2, padding=1, bias=False),
    "padded as TensorFlow does": Conv2dSame(6, 6, 5, 2, groups=6, bias=False),
    "depthwise 3x3": nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
    "depthwise 5x5": nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
    "depthwise 5x5, dilated": nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6, bias=False),
    "depthwise 3x3, dilated, with a bias": nn.Conv2d(6, 6, 3, padding=3, dilation=3, groups=6),
    "many channels": nn.Conv2d(300, 300, 5, padding=2, groups=300, bias=False),
}


@pytest.mark.parametrize("size", [(14, 14), (13, 9), (1, 1), (2, 7)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("way", ["fused", "without numba", "as on a GPU"])
def test_a_convolution_and_its_norm_are_as_torchs(name, size, way, monkeypatch):
    if way == "without numba":
        monkeypatch.setattr(fused, "usable", lambda *tensors: False)
    if way == "as on a GPU":
        monkeypatch.setattr(convolution, "_is_on_cpu", lambda x: False)
    torch.manual_seed(0)
    pair = normalised(deepcopy(CONVOLUTIONS[name]))
    frozen = FrozenNorm(pair[1])
    ours = nn.Sequential(Convolution(pair[0], frozen), frozen)
    x = torch.randn(2, pair[0].in_channels, *size).to(memory_format=torch.channels_last)
    for found, expected in zip(gradients(ours, x), gradients(pair, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_fused_gradient_is_that_of_double_precision():
    conv, x = nn.Conv2d(130, 130, 5, padding=4, dilation=2, groups=130), torch.randn(3, 130, 11, 9)
    found = gradients(nn.Sequential(Convolution(conv)), x)
    exact = gradients(nn.Sequential(deepcopy(conv).double()), x.double())
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_what_is_slow_for_torch_is_fused():
    pytest.importorskip("numba")
    for name, conv in CONVOLUTIONS.items():
        made = Convolution(conv)(torch.rand(1, conv.in_channels, 8, 8))
        is_fused = "DepthwiseConvolution" in type(made.grad_fn).__name__
        assert is_fused == (name.startswith("depthwise") and name != "depthwise 3x3" or name == "many channels"), name


def test_of_the_default_encoder_the_5x5_and_the_dilated_are_slow_for_torch():
    encoder = build_encoder("tf_efficientnet_lite2", weights="none")
    slow = [m for m in encoder.modules() if isinstance(m, Convolution) and m.is_slow_for_torch]
    assert {(m.kernel_size[0], m.dilation[0]) for m in slow} == {(5, 1), (5, 2), (3, 2)}


def test_no_gradient_of_frozen_weights_is_computed(monkeypatch):
    pytest.importorskip("numba")
    conv, x = nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), torch.randn(2, 6, 9, 9, requires_grad=True)
    monkeypatch.setattr(depthwise, "_gradient_of_weight", lambda *given: pytest.fail("it was not asked for"))
    Convolution(conv.requires_grad_(False))(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_5x5_convolution_is_computed_in_float32_under_autocast_too(dilation):
    conv = nn.Conv2d(6, 6, 5, padding=2 * dilation, dilation=dilation, groups=6, bias=False)
    x = torch.rand(2, 6, 14, 14).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = Convolution(conv)(x), conv(x)
    exact = Convolution(conv)(x.float()).bfloat16()
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, exact)
    assert not torch.equal(plain, exact)  # its weights have been rounded


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "convnext_atto", "mobilenetv2_035"])
def test_a_models_features_weights_and_gradients_stay(name):
    torch.manual_seed(0)
    plain = timm.create_model(name, features_only=True, output_stride=16).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
            module.requires_grad_(False)
    ours, x = deepcopy(plain), torch.rand(2, 3, 64, 96)
    fold_norms(ours, [])
    assert ours.state_dict().keys() == plain.state_dict().keys()
    outputs = [model(x) for model in (ours, plain)]
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.detach().abs().max()))
    for output in outputs:
        output[-1].square().sum().backward()
    learnt = [dict(model.named_parameters()) for model in (ours, plain)]
    for key, weight in learnt[1].items():
        if weight.grad is not None:
            scale = float(weight.grad.abs().max())
            torch.testing.assert_close(learnt[0][key].grad, weight.grad, rtol=0, atol=1e-3 * scale)


def test_a_copy_has_norms_of_its_own():
    """The moving average of the weights is one: it must not look at the network's norms."""
    pair = normalised(nn.Conv2d(3, 4, 1))
    frozen = FrozenNorm(pair[1])
    ours = nn.Sequential(Convolution(pair[0], frozen), frozen)
    copy, x = deepcopy(ours), torch.rand(1, 3, 4, 4)
    before = copy(x)
    with torch.no_grad():
        frozen.bias += 1
    assert torch.equal(copy(x), before)
    torch.testing.assert_close(ours(x), before + 1)


class Forked(nn.Module):
    """A convolution whose output is a stage of its own beside what a norm makes of it, as WideResNet-38's first."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = normalised(nn.Conv2d(3, 4, 1))
        self.stage = nn.Identity()

    def forward(self, x):
        made = self.conv(x)
        return self.stage(made), self.norm(made)


def test_what_others_take_too_is_not_normalised():
    model, x = Forked(), torch.rand(1, 3, 4, 4)
    expected = model(x)
    fold_norms(model, [model.stage])
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))
    assert isinstance(model.norm, nn.BatchNorm2d)

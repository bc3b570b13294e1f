"""WideResNet-38 (Wu et al.), and the reading of its published ImageNet weights.

Written from the description in the paper and from the names and shapes of the published weights; the attribute names of
the blocks are those of the files, which is why they look as they do.

Reference:
    Wu, Shen, van den Hengel, Wider or Deeper: Revisiting the ResNet Model for Visual Recognition, Pattern Recognition
    2019, model A1 (https://github.com/itijyou/ademxapp). Dropout and file layout as in PSA, SEAM and 1-stage-wseg.
"""

import re
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss import UserError
from wsss.weights import require_fit

_LATE = {16: (2, 1, 2), 8: (1, 2, 4)}
"""Output stride -> stride of b5, dilation of b5, dilation of b6 and b7: a stride given up doubles what follows it."""

_DROPOUT = {"b6": 0.3, "b7": 0.5}
"""Share of the channels that the bottlenecks drop in training (PSA, SEAM, 1-stage-wseg)."""

_HEADS = ("fc8.", "linear1000.", "linear1000_")
"""How the names of the classifiers begin that the published files carry and the encoder does not need."""

_MXNET_BLOCK = re.compile(r"(res|bn)([2-7])(?:a|b(\d))_(branch1|branch2a|branch2b[12])_([a-z_]+)")
_MXNET_BN7 = re.compile(r"bn7_([a-z_]+)")
_MXNET_BN = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each behind batch norm and ReLU, beside a shortcut.

    The shortcut is the input itself, or, where the shape changes, a 1x1 convolution of the already activated input.
    (B, in_channels, h, w) to (B, out_channels, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(in_channels)
        self.conv_branch2a = _conv3x3(in_channels, mid_channels, stride, dilations[0])
        self.bn_branch2b1 = nn.BatchNorm2d(mid_channels)
        self.conv_branch2b1 = _conv3x3(mid_channels, out_channels, 1, dilations[1])
        self.conv_branch1 = None
        if in_channels != out_channels or stride != 1:
            self.conv_branch1 = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn_branch2a(x))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(activated)
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(activated)))
        return shortcut + self.conv_branch2b1(branch)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each behind batch norm and ReLU, beside a 1x1 convolution of the activated input.

    In training whole channels are dropped before the second and the third convolution.
    (B, in_channels, h, w) to (B, out_channels, h, w).
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        quarter, half = out_channels // 4, out_channels // 2
        self.bn_branch2a = nn.BatchNorm2d(in_channels)
        self.conv_branch2a = nn.Conv2d(in_channels, quarter, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv3x3(quarter, half, 1, dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(half, out_channels, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn_branch2a(x))
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(activated)))
        branch = F.relu(self.bn_branch2b2(self.conv_branch2b1(self.dropout_2b1(branch))))
        return self.conv_branch1(activated) + self.conv_branch2b2(self.dropout_2b2(branch))


class ResNet38(nn.Module):
    """WideResNet-38, model A1, up to and with its last batch norm and ReLU; it has no classifier.

    Groups b2 to b5 are plain blocks, b6 and b7 bottlenecks. Stride 32 of the original is reduced to 16 or 8 by giving
    up the stride of b6, or of b5 and b6, and dilating what follows (`inc_dilate` of ademxapp).

    Batch norm here is ordinary. The method never trains it: the encoder that owns this network keeps it in eval mode,
    with its scale and shift fixed, and also standardizes the image. ImageNet weights come from `load_published`.

    Attributes:
        stage_modules: the module whose output each stage is, from shallow to deep; a forward hook on it sees the very
            tensor returned.
        channels: C of each stage.
        strides: pixels of the image per position of each stage.

    Args:
        output_stride: 16 (the paper) or 8 (1-stage-wseg).

    Raises:
        UserError: another output stride.
    """

    stage_modules = ("conv1a", "b2_2", "b3_2", "b4_5", "relu7")
    channels = (64, 128, 256, 512, 4096)

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        if output_stride not in _LATE:
            raise UserError(f"the output stride of WideResNet-38 must be 8 or 16, got {output_stride}")
        b5_stride, b5_dilation, dilation = _LATE[output_stride]
        self.strides = (1, 2, 4, 8, output_stride)
        self.conv1a = _conv3x3(3, 64, 1, 1)
        self._groups = {
            "b2": self._add_group("b2", 3, (64, 128, 128), 2, 1),
            "b3": self._add_group("b3", 3, (128, 256, 256), 2, 1),
            "b4": self._add_group("b4", 6, (256, 512, 512), 2, 1),
            "b5": self._add_group("b5", 3, (512, 512, 1024), b5_stride, b5_dilation),
        }
        self.b6 = BottleneckBlock(1024, 2048, dilation, _DROPOUT["b6"])
        self.b7 = BottleneckBlock(2048, 4096, dilation, _DROPOUT["b7"])
        self.bn7 = nn.BatchNorm2d(4096)
        self.relu7 = nn.ReLU()  # not in place: a hook on bn7 must not see its tensor changed

    def forward(self, image: Tensor) -> list[Tensor]:
        """The five stages of a standardized image.

        Args:
            image: RGB, (B, 3, H, W), less ImageNet's mean and over its deviation.

        Returns:
            (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) for each i. Stages 0 to 3 have either sign;
            stage 4 is behind the last batch norm and ReLU and is not negative.
        """
        stages = [self.conv1a(image)]
        for group in ("b2", "b3", "b4"):
            stages.append(self._run_group(group, stages[-1]))
        deep = self.b7(self.b6(self._run_group("b5", stages[-1])))
        return [*stages, self.relu7(self.bn7(deep))]

    def _add_group(
        self, group: str, blocks: int, channels: tuple[int, int, int], stride: int, dilation: int
    ) -> tuple[str, ...]:
        """Adds the blocks of a group and returns their names: b2, b2_1, b2_2.

        The first convolution is not dilated: it sees the grid of the group before it.
        """
        in_channels, mid_channels, out_channels = channels
        self.add_module(group, ResidualBlock(in_channels, mid_channels, out_channels, stride, (1, dilation)))
        later = tuple(f"{group}_{i}" for i in range(1, blocks))
        for name in later:
            self.add_module(name, ResidualBlock(out_channels, mid_channels, out_channels, 1, (dilation, dilation)))
        return (group, *later)

    def _run_group(self, group: str, x: Tensor) -> Tensor:
        for name in self._groups[group]:
            x = getattr(self, name)(x)
        return x


def load_published(model: ResNet38, state: Mapping[str, Tensor | np.ndarray]) -> None:
    """Copies published weights into `model`, all or none of them.

    Two layouts are known by their names: that of the `.pth` files (`b2_1.bn_branch2a.running_mean`, also behind
    `module.`, with or without `num_batches_tracked`), and that of the original mxnet arrays
    (`bn2b1_branch2a_moving_mean`, also behind `arg:` or `aux:`), whoever has read them. Their classifiers (`linear1000`
    of ImageNet, `fc8` of VOC) are passed over. Model A of the same authors has the same names and shapes, but pools:
    give model A1.

    Args:
        model: receives the weights in its own type, on its own device.
        state: name -> tensor, or numpy array; not changed.

    Raises:
        UserError: a key is missing, unknown or given twice, or a shape differs; `model` is then as it was.
    """
    expected = model.state_dict()
    # mxnet and old torch lack these counters, and frozen batch norm does not read them.
    counters = {name: value for name, value in expected.items() if name.endswith(".num_batches_tracked")}
    given = counters | _encoder_keys(state)
    require_fit(expected, given, "not the published weights of WideResNet-38")
    model.load_state_dict(given)


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _encoder_keys(state: Mapping[str, Tensor | np.ndarray]) -> dict[str, Tensor]:
    """The entries of `state` under the names of `ResNet38`, without a classifier. Raises UserError on a double."""
    given = {}
    for name, value in state.items():
        bare = re.sub(r"^(module\.|arg:|aux:)", "", name)
        if bare.startswith(_HEADS):
            continue
        key = _torch_name(bare)
        if key in given:
            raise UserError(f"the weights hold {key} twice, the second time as {name}; give one published file")
        given[key] = torch.as_tensor(value)
    return given


def _torch_name(name: str) -> str:
    """The name that `ResNet38` has for one of the mxnet arrays; any other name is returned as it is.

    Block `a` of a group is the first (`2a` is b2), `b1` the second (`2b1` is b2_1); `res` are its convolutions, `bn`
    its batch norms. The mapping was learned from `convert_mxnet_to_torch` of PSA and SEAM.
    """
    if name == "conv1a_weight":
        return "conv1a.weight"
    if (last := _MXNET_BN7.fullmatch(name)) and last[1] in _MXNET_BN:
        return f"bn7.{_MXNET_BN[last[1]]}"
    parts = _MXNET_BLOCK.fullmatch(name)
    if parts is None:
        return name
    kind, group, index, branch, entry = parts.groups()
    block = f"b{group}_{index}" if index else f"b{group}"
    if kind == "res" and entry == "weight":
        return f"{block}.conv_{branch}.weight"
    if kind == "bn" and entry in _MXNET_BN:
        return f"{block}.bn_{branch}.{_MXNET_BN[entry]}"
    return name

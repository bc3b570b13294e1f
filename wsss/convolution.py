"""An encoder's convolutions as they train fast on a CPU, each with the frozen batch norm that follows it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import Tensor, nn

from wsss import fused


def _is_on_cpu(x: Tensor) -> bool:
    """Whether a norm's work is done by the convolution before it: on a GPU more kernels would be launched for it."""
    return x.device.type == "cpu"


class FrozenNorm(nn.Module):
    """A batch norm whose statistics and weights stay as they are, under the names of the one whose place it takes.

    On a CPU the convolution before it has done its work; what timm puts within a norm, dropout and activation, is left.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop, self.act = (getattr(norm, name, nn.Identity()) for name in ("drop", "act"))

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether it takes the place of `module`."""
        return type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.affine and module.track_running_stats

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; on a CPU x is normalised already, and may be overwritten."""
        if not _is_on_cpu(x):
            x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        x = self.drop(x)
        if type(self.act) is nn.ReLU6:
            return F.relu6(x, inplace=not x.requires_grad)  # in place torch would copy x for the gradient
        return self.act(x)

    def within(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights (C, ...) and bias (C,) of one convolution that does what that of the given ones and the norm do.

        As `torch.nn.utils.fusion.fuse_conv_bn_weights`, by whose result the given weights would not learn.
        """
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        mean = self.running_mean if bias is None else self.running_mean - bias
        return weight * scale[:, None, None, None], self.bias - mean * scale


class Convolution(nn.Conv2d):
    """The convolution that is given, with its weights, and on a CPU the work of the norm after it.

    A norm apart reads and writes its features twice forward and twice backward, an eighth of a training step. What is
    slow for torch is computed in float32 under autocast too, which the fused gradient takes; oneDNN's of 5x5 are two to
    three times slower backward in bfloat16, unlike all other layers here, which are twice as fast.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenNorm | None = None) -> None:
        geometry = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation
        super().__init__(*geometry, conv.groups, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.is_padded_by_stride = getattr(conv, "is_padded_by_stride", isinstance(conv, Conv2dSame))
        self._norm = (norm,)  # in a tuple, since it is a module of the network in its own place

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether it takes the place of `module`."""
        is_known = type(module) in (nn.Conv2d, Conv2dSame)
        return is_known and module.padding_mode == "zeros" and not isinstance(module.padding, str)

    @property
    def is_slow_for_torch(self) -> bool:
        """Whether `fused.DepthwiseConvolution` computes the same and has the faster gradient."""
        (size, width), (dilation, across) = self.kernel_size, self.dilation
        is_square = size == width and dilation == across and self.stride == (1, 1)
        keeps_size = size % 2 == 1 and self.padding == (dilation * (size // 2),) * 2
        is_depthwise = self.groups == self.in_channels == self.out_channels
        return is_depthwise and is_square and keeps_size and (size > 3 or dilation > 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), normalised on a CPU."""
        weight, bias = self.normalising_weights() if _is_on_cpu(x) else (self.weight, self.bias)
        x = self.padded(x)
        if not (_is_on_cpu(x) and self.is_slow_for_torch):
            return self._conv_forward(x, weight, bias)
        wide = x.float() if torch.is_autocast_enabled("cpu") else x
        with torch.autocast("cpu", enabled=False):
            return self._depthwise(wide, weight, bias).to(x.dtype)

    def padded(self, x: Tensor) -> Tensor:
        """x with the border that it has beyond `padding`."""
        return pad_same(x, self.kernel_size, self.stride, self.dilation) if self.is_padded_by_stride else x

    def _depthwise(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if fused.usable(x.detach(), weight.detach()):
            return fused.DepthwiseConvolution.apply(x, weight, bias, self.dilation[0])
        return self._conv_forward(x, weight, bias)

    def normalising_weights(self) -> tuple[Tensor, Tensor | None]:
        """Its weights and bias with the norm's work in them."""
        (norm,) = self._norm
        return (self.weight, self.bias) if norm is None else norm.within(self.weight, self.bias)


@torch.inference_mode()
def fold_norms(network: nn.Module, stages: Sequence[nn.Module]) -> None:
    """Put `Convolution` and `FrozenNorm` in the place of what they compute.

    A norm without a convolution before it stays, and so does one after a convolution whose output is also given to one
    of `stages`, as WideResNet-38's first: others take it too.

    Args:
        network: in evaluation mode, takes images (B, 3, H, W), also of 64x64. What a norm is given no other module
            takes, unless it is one of `stages`.
    """
    before = _makers(network, [*stages, *filter(FrozenNorm.fits, network.modules())])
    shared = {before.get(stage) for stage in stages}
    pairs = {norm: conv for norm, conv in before.items() if FrozenNorm.fits(norm) and conv not in shared}
    new = {norm: FrozenNorm(norm) for norm, conv in pairs.items() if Convolution.fits(conv)}
    norms = {pairs[norm]: frozen for norm, frozen in new.items()}
    new |= {conv: Convolution(conv, norms.get(conv)) for conv in network.modules() if Convolution.fits(conv)}
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child in new:
                setattr(parent, name, new[child])


def _makers(network: nn.Module, takers: Sequence[nn.Module]) -> dict[nn.Module, nn.Conv2d]:
    """Of each taker the convolution whose output it is given, if any.

    Seen on an image, as modules do not tell in which order they are called.
    """
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # the tensors are kept, so that no address is used twice
    makers = {}

    def remember(conv: nn.Conv2d, _: tuple, output: Tensor) -> None:
        made[id(output)] = output, conv

    def look(module: nn.Module, inputs: tuple) -> None:
        if id(inputs[0]) in made:
            makers[module] = made[id(inputs[0])][1]

    hooks = [module.register_forward_hook(remember) for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks += [module.register_forward_pre_hook(look) for module in takers]
    network(next(network.parameters()).new_zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return makers

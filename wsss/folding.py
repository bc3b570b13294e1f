"""A network that no longer trains, made faster: batch normalisation is folded into the convolutions before it."""

from copy import deepcopy

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wsss.network import ShapeAwareNetwork


@torch.inference_mode()
def folded(network: ShapeAwareNetwork) -> ShapeAwareNetwork:
    """A copy that computes the same with fewer passes over memory, to about 1e-6 of its largest output.

    Args:
        network: in evaluation mode; left as it is.
    """
    copy = deepcopy(network)
    places = {child: (parent, name) for parent in copy.modules() for name, child in parent.named_children()}
    for norm, conv in _pairs(copy).items():
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        parent, name = places[norm]
        setattr(parent, name, nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity())
    for conv, (parent, name) in places.items():
        if _OneDnnConv2d.fits(conv):
            setattr(parent, name, _OneDnnConv2d(conv))
    return copy


class _OneDnnConv2d(nn.Module):
    """A convolution by oneDNN whatever the number of threads.

    A process with one thread, as those that judge photographs have, gets torch's own for 1x1 and 3x3 (a matrix product
    by MKL), which takes twice as long on AMD's processors.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.geometry = conv.padding, conv.stride, conv.dilation, conv.groups

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether it computes just what `torch.mkldnn_convolution` does, on a CPU for which torch has it."""
        plain = type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return plain and module.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return torch.mkldnn_convolution(image, self.weight, self.bias, *self.geometry)


def _pairs(network: ShapeAwareNetwork) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Each normalisation that is given just what a convolution has made, and that convolution.

    One whose output is a stage of the encoder as well, as WideResNet-38's first, is left out: others take it too. Seen
    on an image, as modules do not tell in which order they are called.
    """
    makers: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # the tensors are kept, so that no address is used twice
    pairs = {}

    def made(conv: nn.Conv2d, _: tuple, output: Tensor) -> None:
        makers[id(output)] = output, conv

    def taken(module: nn.Module, inputs: tuple) -> None:
        if id(inputs[0]) in makers:
            pairs[module] = makers[id(inputs[0])][1]

    takers = [*network.encoder.taps, *(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))]
    hooks = [m.register_forward_hook(made) for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(taken) for m in takers]
    network(next(network.parameters()).new_zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    stages = {pairs.pop(tap, None) for tap in network.encoder.taps}
    return {norm: conv for norm, conv in pairs.items() if conv not in stages}

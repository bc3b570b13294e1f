"""Class activation maps of the network's stages: where the evidence for a class lies (Fig. 1 and 8).

The maps are grad-cam's own; only the pass through the network is ours. grad-cam would run it once a method and a stage,
fill the gradients of all parameters and normalise each map, which hides how large it is. Here one forward and one
backward pass give the features of all stages with their gradients, and each method makes its map from these arrays.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.encoding import Encoding, cell_of, require_pixel
from analysis.predictor import Predictor
from analysis.render import heat
from wsss import UserError
from wsss.network import Output, ShapeAwareNetwork
from wsss.probabilities import to_image

METHODS = ("GradCAM", "GradCAM++", "HiResCAM", "LayerCAM", "XGradCAM", "EigenCAM", "EigenGradCAM")
"""Methods that answer at once. EigenCAM's map is of no class."""

SIGNLESS_METHODS = ("EigenCAM", "EigenGradCAM")
"""Their map is a principal component, whose sign is arbitrary."""

SLOW_METHODS = ("ScoreCAM", "AblationCAM")
"""Methods that run the network once for each channel; see `estimated_seconds`."""

TARGETS = ("image score", "predicted region", "pixel")
"""What a map can explain: the class's score of the image, its scores over its region, or its score at one pixel."""

VANILLA = "score map"
"""The stage of the vanilla CAM: the class's scores themselves, before the softmax."""

_OVERLAY_OPACITY = 0.6

Question = Callable[[Output], Tensor]
"""What is asked of the network's output: one number an image, (B,)."""


class Cam(NamedTuple):
    """The map of one stage by one method, as the method gives it: neither rectified nor normalised."""

    stage: str
    method: str
    values: np.ndarray  # (h, w) float32; positive speaks for the class, but by EigenCAM, which asks of none

    @property
    def low(self) -> float:
        return float(self.values.min())

    @property
    def high(self) -> float:
        return float(self.values.max())

    def scaled(self, most: float | None = None) -> np.ndarray:
        """What speaks for the class, (h, w) in [0, 1]: a share of `most`, or of the map's own maximum. 0 stays 0."""
        most = self.high if most is None else most
        positive = self.values.clip(0, None)
        return (positive / most).clip(0, 1) if most > 0 else np.zeros_like(positive)


class Evidence(NamedTuple):
    """What one forward and one backward pass leave."""

    features: dict[str, np.ndarray]  # of each stage, (1, C, h, w)
    gradients: dict[str, np.ndarray]  # of the answer, (1, C, h, w)
    logits: np.ndarray  # (K, h, w)


def grad_cam() -> ModuleType:
    """grad-cam, imported when it is first needed: that takes 6 to 10 seconds. Raises UserError where it is missing."""
    try:
        import pytorch_grad_cam
    except ModuleNotFoundError:
        raise UserError("these maps need grad-cam: pip install grad-cam") from None
    return pytorch_grad_cam


def _class_of(method: str) -> type:
    """grad-cam's own of that name."""
    return getattr(grad_cam(), method.replace("++", "PlusPlus"))


def stages(network: ShapeAwareNetwork) -> dict[str, nn.Module]:
    """The module whose output is the features of each stage, in the order of the forward pass.

    Each takes one tensor, since AblationCAM puts a layer of its own there. The decoder's features are those that its
    last convolution turns into scores.
    """
    found = {"encoder": network.encoder.taps[-1]}
    if network.shape_cue is not None:
        found["shape cue"] = network.shape_cue.conv
    return found | {"decoder": network.decoder.layers[-3]}


def explain(
    predictor: Predictor,
    encoding: Encoding,
    name: str,
    *,
    methods: Sequence[str] = ("GradCAM",),
    target: str = "image score",
    pixel: tuple[int, int] | None = None,
) -> list[Cam]:
    """The vanilla CAM of a class, then the map of each stage by each method.

    All methods but the slow ones share one pass. The network is as it was before when this returns or raises. A class
    without gradient, such as one that has no predicted region, has maps of 0.

    Args:
        name: of the class.
        methods: from METHODS or SLOW_METHODS.
        target: from TARGETS.
        pixel: (row, column) of encoding.rgb; read where the target is a pixel.

    Returns:
        First the vanilla CAM, stage VANILLA; then, method by method, the stages in the order of `stages`.

    Raises:
        UserError: a name is unknown, the pixel lies outside, or grad-cam is not installed.
    """
    known = (*METHODS, *SLOW_METHODS)
    if unknown := [method for method in methods if method not in known]:
        raise UserError(f"there is no method {unknown[0]!r}; choose from {', '.join(known)}")
    if methods:
        grad_cam()  # before the lock, which others wait for
    image, question = _asked(predictor, encoding, name, target, pixel)
    with predictor.lock, borrowed(predictor.network):
        evidence = observe(predictor.network, image, question)
    index = predictor.index(name)
    cams = [Cam(VANILLA, "CAM", evidence.logits[index])]
    for method in methods:
        if method in METHODS:
            cams += _maps(method, evidence)
        else:
            cams += _slow_maps(method, predictor, image, question, evidence)
    return cams


def estimated_seconds(predictor: Predictor, encoding: Encoding, method: str) -> float:
    """How long `explain` will take by this method, from one pass that is timed now and the number of passes."""
    image, question = _asked(predictor, encoding, predictor.classes[0], "image score", None)
    with predictor.lock, borrowed(predictor.network):
        begun = time.perf_counter()
        evidence = observe(predictor.network, image, question)
        seconds = time.perf_counter() - begun
    channels = sum(features.shape[1] for features in evidence.features.values())
    return seconds * (channels if method in SLOW_METHODS else 1)


def coverage(cam: Cam, region: np.ndarray) -> tuple[float, float]:
    """How local a map is, measured where it reaches half of its maximum.

    A map of a few discriminative pixels covers little of the object; one that leaks has little of its area inside.

    Args:
        region: the object, true or predicted, (H, W) bool.

    Returns:
        The share of the object that the map covers, and the share of the map that lies inside the object; NaN where
        there is no object or no map.
    """
    size = region.shape[::-1]
    reached = cv2.resize(cam.scaled(), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    hits = np.count_nonzero(reached & region)
    return _share(hits, np.count_nonzero(region)), _share(hits, np.count_nonzero(reached))


def overlay(rgb: np.ndarray, scaled: np.ndarray, opacity: float = _OVERLAY_OPACITY) -> np.ndarray:
    """A map (h, w) in [0, 1] in false colors over its photograph, (H, W, 3) uint8; 1 is the brightest.

    The colors are not stretched to the map's own range, so that maps with a common scale can be compared.
    """
    return cv2.addWeighted(rgb, 1 - opacity, heat(scaled, rgb.shape[:2], limits=(0, 1)), opacity, 0)


@contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; its modes and its forward hooks are given back whatever happens."""
    before = [(module, module.training, dict(module._forward_hooks)) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training, hooks in before:
            module.training = training
            module._forward_hooks.clear()
            module._forward_hooks.update(hooks)


@torch.inference_mode(False)
@torch.enable_grad()
def observe(network: ShapeAwareNetwork, image: Tensor, question: Question) -> Evidence:
    """The features of each stage and the gradients of the answer by them; no parameter's gradient is touched.

    For a borrowed network: the hooks see every pass through it, so no other thread may use it meanwhile.
    """
    seen: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            seen[stage] = output if output.requires_grad else output.requires_grad_()  # frozen layers give none

        return hook

    for stage, module in stages(network).items():
        module.register_forward_hook(keep(stage))
    output = network(image)
    gradients = torch.autograd.grad(question(output).sum(), list(seen.values()), materialize_grads=True)
    return Evidence(
        {stage: features.detach().cpu().numpy() for stage, features in seen.items()},
        {stage: gradient.cpu().numpy() for stage, gradient in zip(seen, gradients, strict=True)},
        output.logits[0].detach().cpu().numpy(),
    )


def _asked(
    predictor: Predictor, encoding: Encoding, name: str, target: str, pixel: tuple[int, int] | None
) -> tuple[Tensor, Question]:
    """The image as the network takes it, and the question. Raises UserError, see `explain`."""
    index = predictor.index(name)
    image = to_image(encoding.rgb, predictor.config.test_short_side).to(predictor.device)
    if target == "image score":
        return image, lambda output: output.image_scores[:, index - 1]
    if target == "predicted region":
        return image, _summed(predictor.mask(encoding) == index, index)
    if target == "pixel":
        return image, _at(pixel, encoding.rgb.shape[:2], index)
    raise UserError(f"there is no target {target!r}; choose from {', '.join(TARGETS)}")


def _summed(region: np.ndarray, index: int) -> Question:
    """The sum of a class's scores over a region (H, W) of the photograph."""
    region = torch.from_numpy(region)[None, None].float()

    def question(output: Output) -> Tensor:
        scores = output.logits[:, index]
        return (scores * F.interpolate(region, scores.shape[-2:], mode="nearest-exact")[0].to(scores)).sum((1, 2))

    return question


def _at(pixel: tuple[int, int] | None, size: tuple[int, ...], index: int) -> Question:
    """A class's score at one pixel of a photograph of this size."""
    require_pixel(pixel, size)

    def question(output: Output) -> Tensor:
        scores = output.logits[:, index]
        row, column = cell_of(pixel, size, scores.shape[-2:])
        return scores[:, row, column]

    return question


def _maps(method: str, evidence: Evidence) -> list[Cam]:
    """The maps of a method that needs nothing but features and gradients: it gets no network to hook into."""
    cam = _class_of(method)(nn.Linear(1, 1), [])
    cams = []
    for stage, features in evidence.features.items():
        values = _finite(cam.get_cam_image(None, None, None, features, evidence.gradients[stage], False))
        if method in SIGNLESS_METHODS and abs(values.min()) > abs(values.max()):
            values = -values  # the rule of Seg-Eigen-CAM, which grad-cam has as a method of its own
        cams.append(Cam(stage, method, values))
    return cams


class _Answer(nn.Module):
    """A network that says nothing but the answer to a question, (B, 1), as grad-cam wants it."""

    def __init__(self, network: ShapeAwareNetwork, question: Question) -> None:
        super().__init__()
        self.network, self.question = network, question

    def forward(self, image: Tensor) -> Tensor:
        return self.question(self.network(image))[:, None]


def _slow_maps(method: str, predictor: Predictor, image: Tensor, question: Question, evidence: Evidence) -> list[Cam]:
    """The maps of a method that asks the network again and again.

    It works on a copy: AblationCAM replaces layers, and nobody should wait a minute for the lock.
    """
    with predictor.lock:
        network = copy.deepcopy(predictor.network).eval()
    options = {"ablation_layer": grad_cam().ablation_layer.AblationLayer()} if method == "AblationCAM" else {}
    cams = []
    for stage, module in stages(network).items():
        cam = _class_of(method)(_Answer(network, question), [], **options)
        features = evidence.features[stage]
        values = cam.get_cam_image(image, module, [torch.sum], features, None, False)
        cams.append(Cam(stage, method, _finite(values)))
    return cams


def _finite(values: np.ndarray) -> np.ndarray:
    """The map of the one image, float32; AblationCAM divides by the answer, which may be 0."""
    return np.nan_to_num(np.asarray(values[0], np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")

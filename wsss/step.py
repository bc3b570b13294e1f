"""One step of the optimiser, which looks at every number before it touches the weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wsss.config import Config
from wsss.data.augment import View
from wsss.distributed import Group
from wsss.exits import NotFinite
from wsss.losses import classification_loss
from wsss.network import Output
from wsss.objective import Moment, loss_terms, total_loss
from wsss.precision import autocast
from wsss.state import Learner

_LEAST_SCALE = 1.0
"""Of float16 gradients: torch halves it after each step whose gradient is not finite, from 65,536 on, without end."""


def take_step(learner: Learner, view: View, config: Config, now: Moment, group: Group) -> dict[str, float]:
    """One step of the optimiser. Returns the loss terms and their total.

    Its random numbers are a function of (seed, step, rank).

    Raises:
        NotFinite: naming the step, the photographs and the term at fault, where it is one, in all processes and before
            the weights are touched.
    """
    terms = _terms(learner.parallel, learner, view, config, now, group)
    learner.optimiser.zero_grad()
    learner.scaler.scale(terms["total"]).backward()
    # To look at a number is to wait for the GPU: all are looked at once.
    *values, norm = torch.stack([*terms.values(), _gradient_norm(learner)]).tolist()
    told = dict(zip(terms, values, strict=True))
    if group.maximum(int(not all(map(math.isfinite, (*values, norm))))):
        photographs = ", ".join(view.name)
        term = _term_at_fault(told, learner, view, config, now, group)
        found = group.gathered(f"{term} at step {now.step + 1}; the photographs were {photographs}" if term else "")
        raise NotFinite("; ".join(found) or f"the gradient is not finite at step {now.step + 1}; see {photographs}")
    learner.scaler.step(learner.optimiser)
    learner.scaler.update()
    if learner.scaler.is_enabled() and learner.scaler.get_scale() < _LEAST_SCALE:
        what = f"the gradient is not finite at step {now.step + 1}, however small it is scaled for float16"
        raise NotFinite(f"{what}; see {', '.join(view.name)}")
    if learner.average is not None:
        learner.average.update_parameters(learner.network)
        # Batch norm has seen this process's share of the batch alone. The state that a run goes on from is the first's.
        group.broadcast(buffer for buffer in learner.average.buffers() if buffer.is_floating_point())
    return told


def _terms(
    network: nn.Module, learner: Learner, view: View, config: Config, now: Moment, group: Group
) -> dict[str, Tensor]:
    """The loss terms of Eq. 10 and their total."""
    torch.manual_seed(config.seed * 1_000_003 + now.step * group.world + group.rank)
    device = group.device
    image = view.image.to(device, non_blocking=True, memory_format=torch.channels_last).float() / 255
    mask = view.mask.to(device, non_blocking=True)
    with autocast(config.precision, device):
        output = network(image, focal_gradient=now.has_focal_gradient)
        teacher = _look(learner.average, image) if _teaches(config, now) else output
    if _can_be_refined(teacher):
        terms = loss_terms(output, teacher, image, view.labels, mask, config, now)
    else:
        seen, labels = {"classification": output, "teacher": teacher}, view.labels.to(device)
        terms = {name: classification_loss(of.image_scores, labels) for name, of in seen.items()}
    terms["total"] = total_loss(terms, now.weights)
    return terms


def _teaches(config: Config, now: Moment) -> bool:
    """Whether the average's own look at the batch is needed."""
    return config.teacher == "average" and config.supervision == "labels" and now.has_mask_loss


@torch.no_grad()
def _look(average: nn.Module, image: Tensor) -> Output:
    """The average's output, without the shape cue's random drop."""
    return average.eval()(image)


def _can_be_refined(teacher: Output) -> bool:
    """Refinement refuses scores that are not finite on a CPU; the classification loss of them is not finite either."""
    return teacher.logits.device.type != "cpu" or bool(teacher.logits.isfinite().all())


def _gradient_norm(learner: Learner) -> Tensor:
    """The norm of all gradients; 0 in float16, where the scaler passes over a step whose gradient is not finite."""
    gradients = [weight.grad for weight in learner.network.parameters() if weight.grad is not None]
    if learner.scaler.is_enabled():
        return torch.zeros((), device=gradients[0].device)
    return torch.nn.utils.get_total_norm(gradients).float()


def _term_at_fault(
    values: dict[str, float], learner: Learner, view: View, config: Config, now: Moment, group: Group
) -> str:
    """Names the loss of this process that is not finite, or whose gradient is not; "" where all are finite."""
    for term, value in values.items():
        if not math.isfinite(value):
            return f"the {term} loss is {value}"
    # The weights are still those of the step: it is computed again, this time each term on its own.
    terms = _terms(learner.network, learner, view, config, now, group)
    weights = [weight for weight in learner.network.parameters() if weight.requires_grad]
    for term, loss in terms.items():
        if loss.requires_grad and term != "total":
            gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            if not _all_finite(gradient for gradient in gradients if gradient is not None):
                return f"the gradient of the {term} loss is not finite"
    return ""


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)

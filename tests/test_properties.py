"""What must hold of the mathematics for any input: the answer is finite, or it is refused. Never wrong in silence."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsss import UNLABELLED
from wsss.losses import classification_loss, pixel_loss, region_loss
from wsss.pseudo import pseudo_mask
from wsss.refinement import DILATIONS, refine
from wsss.shape_cue import sample_offsets, self_information

EXTREMES = (0.0, 1.0, 1e-30, 1e4, 1e30, -1e4)
sides = st.integers(1, 12)
quietly = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)

shares = st.floats(0, 1, allow_subnormal=False)  # torch is told to take them as 0


@st.composite
def maps(draw, least_channels=1, values=EXTREMES):
    """(B, C, H, W) float32 or float64: noise, plain, one extreme pixel, or stripes of extremes."""
    shape = (draw(st.integers(1, 2)), draw(st.integers(least_channels, 5)), draw(sides), draw(sides))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.rand(shape, generator=generator, dtype=draw(st.sampled_from([torch.float32, torch.float64])))
    kind, value = draw(st.sampled_from(["noise", "plain", "spot", "stripes"])), draw(st.sampled_from(values))
    if kind == "plain":
        x.fill_(value)
    elif kind == "spot":
        x[0, 0, 0, 0] = value
    elif kind == "stripes":
        x[..., ::2] = value
    return x


unit_maps = maps(values=(0.0, 1.0, 1e-30))


def labels_of(masks: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(masks), masks.shape[1] - 1)


@quietly
@given(maps(), st.sampled_from([1, 2, 7]), st.sampled_from([1e-3, 1.0, 1e3]))
def test_information_is_finite_and_never_negative(x, radius, bandwidth):
    information = self_information(x, sample_offsets(radius, 9), bandwidth=bandwidth)
    assert information.shape == (len(x), 1, *x.shape[-2:])
    assert information.isfinite().all() and information.min() >= -1e-4


@quietly
@given(
    unit_maps,
    st.integers(2, 4),
    shares,
    st.integers(0, 12),
    st.sampled_from([(1,), (24,), DILATIONS]),
)
def test_refinement_stays_within_the_scores_it_was_given(image, classes, alpha, steps, dilations):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(len(image), classes, *image.shape[-2:], generator=generator)
    image = image[:, :1].expand(-1, 3, -1, -1).float()
    refined = refine(image, scores, scores, alpha=alpha, steps=steps, dilations=dilations)
    assert refined.shape == scores.shape and refined.isfinite().all()
    assert refined.min() >= scores.min() - 1e-5 and refined.max() <= scores.max() + 1e-5
    assert steps > 0 or torch.equal(refined, scores)


@quietly
@given(
    maps(least_channels=2, values=(0.0, 1.0, 1e-30)),
    shares,
    shares,
    shares,
)
def test_a_pseudo_mask_names_only_classes_that_are_there(refined, object_cutoff, background_cutoff, least_cutoff):
    labels = labels_of(refined)
    labels[:, -1] = 0
    cutoffs = {"object_cutoff": object_cutoff, "background_cutoff": background_cutoff, "least_cutoff": least_cutoff}
    mask = pseudo_mask(refined, labels, **cutoffs)
    assert mask.shape == (len(refined), *refined.shape[-2:]) and mask.dtype == torch.int64
    assert set(mask.unique().tolist()) <= {*range(refined.shape[1] - 1), UNLABELLED}


@quietly
@given(maps(least_channels=2, values=(0.0, 1.0, 1e4, -1e4)), st.integers(0, 99), st.sampled_from([0, 0.5, 1]))
def test_losses_and_their_gradients_are_finite_and_not_negative(logits, seed, labelled):
    generator = torch.Generator().manual_seed(seed)
    size = (len(logits), *logits.shape[-2:])
    pseudo = torch.randint(logits.shape[1], size, generator=generator)
    pseudo[torch.rand(size, generator=generator) >= labelled] = UNLABELLED
    for loss_of in (
        lambda x: pixel_loss(x, pseudo),
        lambda x: pixel_loss(x, pseudo, labels_of(x)),
        lambda x: region_loss(x, pseudo, radius=2),
        lambda x: classification_loss(x[:, 1:].mean((2, 3)), labels_of(x).to(x.dtype)),
    ):
        given_logits = logits.clone().requires_grad_()
        loss = loss_of(given_logits)
        loss.backward()
        assert loss.isfinite() and loss >= -1e-5
        assert given_logits.grad is not None and given_logits.grad.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_of_what_is_not_finite_is_not_finite(bad):
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 1, 2, 2] = bad
    pseudo = torch.zeros(1, 4, 4, dtype=torch.int64)
    pseudo[0, 2] = 1  # a loss that looked fine would train on nonsense
    assert not pixel_loss(logits, pseudo).isfinite()

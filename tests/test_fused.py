"""The fused kernels give what the plain equations give, to 1e-5, for any caller, and a step never waits for a GPU."""

import importlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from wsss import fused
from wsss.fused import compiled
from wsss.losses import classification_loss, pair_costs, pixel_loss, region_loss
from wsss.pseudo import present_classes, pseudo_mask
from wsss.refinement import affinity, kernel, propagate, refine, spread
from wsss.shape_cue import manhattan_offsets, self_information

pytestmark = pytest.mark.skipif(
    compiled.numba is None, reason="numba is not installed: plain PyTorch computes everything"
)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def checkerboard(batch, channels, height, width):
    return ((torch.arange(height)[:, None] + torch.arange(width)) % 2).float().expand(batch, channels, -1, -1)


PICTURES = {
    "noise": noise,
    "constant": lambda *shape: torch.full(shape, 0.7),
    "almost constant": lambda *shape: 0.7 + 1e-6 * noise(*shape),
    "checkerboard": checkerboard,
    "one bright pixel": lambda *shape: F.one_hot(torch.tensor(0), shape[-1]).float().expand(shape),
    "saturated": lambda *shape: 1e4 * (noise(*shape) - 0.5).sign(),
}
SIZES = [(1, 1), (1, 9), (13, 1), (7, 30), (30, 53)]


def refined_in_float64(image, scores, probs, alpha, steps):
    """By the plain equations: float64 is not for the fused kernels."""
    out = torch.zeros_like(probs, dtype=torch.float64)
    color = kernel(image.double())
    for k in range(probs.shape[1]):
        weights = affinity(color, kernel(scores[:, k : k + 1].double()), alpha)
        out[:, k] = probs[:, k].double()
        for _ in range(steps):
            out[:, k] = propagate(out[:, k], weights)
    return out.float()


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("size", SIZES)
def test_refinement_equals_the_plain_equations(picture, size):
    image, scores = picture(2, 3, *size), 2 * noise(2, 2, *size, seed=1)
    probs = noise(2, 2, *size, seed=2)
    for given, alpha in (
        ((image, scores), 0.8),
        ((noise(2, 3, *size), picture(2, 2, *size)), 0.3),
        ((image, image[:, :2]), 0),
    ):
        expected = refined_in_float64(*given, probs, alpha, 5)
        torch.testing.assert_close(refine(*given, probs, alpha=alpha, steps=5), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("height", [1, 20, 75])
def test_rows_that_threads_share_are_as_if_one_thread_had_made_them(steps, height, monkeypatch):
    given = noise(1, 3, height, 20), noise(1, 3, height, 20, seed=1), noise(1, 3, height, 20, seed=2)
    weights, maps = affinity(*(kernel(x[:, :1]) for x in given[:2]), 0.5), given[2][:, 0]
    alone, alone_each = refine(*given, steps=steps), list(spread(maps, weights, steps))
    monkeypatch.setattr(compiled, "_LEAST_CELLS", 1)
    for threads in (2, 3, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(refine(*given, steps=steps), alone)
        assert all(map(torch.equal, spread(maps, weights, steps), alone_each))


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("size", SIZES)
def test_each_kernel_equals_the_plain_equation(picture, size):
    image, scores, maps = picture(1, 3, *size), noise(3, 1, *size, seed=1), noise(3, *size, seed=2)
    color, label = kernel(image), kernel(scores)
    torch.testing.assert_close(color.double(), kernel(image.double()), atol=1e-4, rtol=1e-4)
    weights = affinity(color, label, 0.6)  # one color serves three classes
    torch.testing.assert_close(weights.double(), affinity(color.double(), label.double(), 0.6), atol=1e-5, rtol=0)
    for steps in (0, 1, 7):
        found, expected = (list(spread(x, y, steps)) for x, y in ((maps, weights), (maps.double(), weights.double())))
        assert torch.equal(found[0], maps)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=0)


def test_an_exponent_far_below_the_others_does_not_vanish_into_nan():
    label = torch.zeros(1, 48, 1, 9)
    label[:, 1:] = -1e30
    assert affinity(label, label, 0.5)[0, 0].eq(1).all()


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("patch", [1, 3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_self_information_equals_the_plain_equation(picture, patch, size):
    image, offsets = picture(2, 3, *size), manhattan_offsets(3)
    expected = self_information(image.double(), offsets, patch=patch, bandwidth=0.7)
    result = self_information(image, offsets, patch=patch, bandwidth=0.7)
    torch.testing.assert_close(result, expected.float(), atol=1e-5, rtol=1e-5)


def pairs(size, classes=3, scale=2.0):
    """Clamped log-probabilities, pseudo mask and shares in float64."""
    log_probs = (scale * noise(2, classes, *size)).double().log_softmax(1)
    pseudo = torch.randint(0, classes, (2, *size), generator=torch.Generator().manual_seed(0))
    pseudo[noise(2, *size, seed=3) < 0.2] = 255
    return log_probs, pseudo, noise(2, *size, seed=4).double() * (pseudo != 255)


def test_the_plain_region_costs_have_the_right_gradient():
    log_probs, pseudo, share = pairs((3, 4))
    assert gradcheck(lambda x: pair_costs(x, pseudo, share, 2, 1.0), log_probs.requires_grad_())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 1), (3, 3), (40, 57)])
@pytest.mark.parametrize(("classes", "scale", "margin"), [(3, 2.0, 3.0), (1, 2.0, 3.0), (7, 9.0, 0.2)])
def test_region_costs_and_their_gradient_equal_the_plain_ones(size, classes, scale, margin):
    log_probs, pseudo, share = pairs(size, classes, scale)
    plain, quick = log_probs.clone().requires_grad_(), log_probs.float().requires_grad_()
    expected = pair_costs(plain, pseudo, share, 3, margin)
    cost = fused.RegionPairs.apply(quick, pseudo, share.float(), 3, margin)
    expected.backward()
    (2 * cost).backward()
    torch.testing.assert_close(cost.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick.grad.double(), 2 * plain.grad, atol=1e-5, rtol=1e-5)


def test_callers_side_by_side_get_what_each_gets_alone():
    scenes = [(noise(2, 3, 20, 30, seed=i), noise(2, 3, 20, 30, seed=9 + i), noise(2, 3, 20, 30)) for i in range(4)]
    alone = [refine(*given) for given in scenes]
    wrong = []

    def ask(i):
        for _ in range(5):
            if not torch.equal(refine(*scenes[i]), alone[i]):
                wrong.append(i)

    callers = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_of_threads_does_not_change_the_result(batch, monkeypatch):
    monkeypatch.setattr(compiled, "_LEAST_CELLS", 1)
    given = noise(batch, 3, 20, 30), noise(batch, 3, 20, 30, seed=1), noise(batch, 3, 20, 30, seed=2)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((refine(*given), self_information(given[0], manhattan_offsets(2))))
    finally:
        torch.set_num_threads(before)
    for refined, information in results[1:]:
        assert torch.equal(refined, results[0][0])
        assert torch.equal(information, results[0][1])


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(tmp_path, monkeypatch):
    """numba itself looks at the caller's file alone."""
    pytest.importorskip("numba")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module of the same second and size would be an old one
    (tmp_path / "outer_kernel.py").write_text(
        "from inner_kernel import inner\nfrom wsss.fused.compiled import compiled\n\n"
        "@compiled\ndef outer(x):\n    return inner(x)\n"
    )
    for answer in (1.0, 2.0):
        (tmp_path / "inner_kernel.py").write_text(
            f"from wsss.fused.compiled import compiled\n\n@compiled\ndef inner(x):\n    return x + {answer}\n"
        )
        importlib.invalidate_caches()
        for name in ("inner_kernel", "outer_kernel"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(compiled, "_DIGEST", compiled.source_digest(tmp_path))
        assert importlib.import_module("outer_kernel").outer(0.0) == answer


def test_a_gradient_that_is_asked_for_still_flows():
    image = noise(1, 3, 6, 7).requires_grad_()
    assert self_information(image, manhattan_offsets(2)).requires_grad


def test_without_numba_everything_is_computed_all_the_same(monkeypatch):
    given = noise(2, 3, 9, 11), noise(2, 3, 9, 11, seed=1), noise(2, 3, 9, 11, seed=2)
    pseudo = torch.randint(0, 3, (2, 9, 11))

    def results():
        return refine(*given), self_information(given[0], manhattan_offsets(3)), region_loss(given[1], pseudo)

    quick = results()
    monkeypatch.setattr(compiled, "numba", None)
    for ours, plain in zip(quick, results(), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


# --- On a GPU nothing in a step may wait for a number: tensors without data refuse to give one


@pytest.mark.parametrize("given", [True, False])
def test_a_step_of_refinement_and_losses_asks_the_gpu_for_no_number(given):
    with FakeTensorMode():
        image, logits = (torch.empty(2, 3, 24, 24, device="cuda") for _ in range(2))
        labels = torch.empty(2, 2, device="cuda")
        logits.requires_grad_()
        present = present_classes(labels) if given else None
        probs = logits.softmax(1)
        target = pseudo_mask(refine(image, logits, probs, present=present), labels)
        loss = classification_loss(logits.mean((2, 3))[:, 1:], labels)
        loss = loss + pixel_loss(logits, target, labels) + region_loss(logits, target)
        assert loss.device.type == "cuda"


def test_the_rule_on_waiting_bites():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense|data-dependent|nonzero"):
        torch.empty(3, device="cuda").sum().item()


def test_kernels_that_cannot_be_kept_on_disk_are_compiled_all_the_same():
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    code += "import torch; from wsss.fused import compiled\n"
    code += "kernel = compiled.compiled(lambda x: x + 1); print(kernel(1), kernel(2))"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.py")
        path.write_text(code)  # numba keeps what lies in a file
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "NUMBA_CACHE_DIR": folder}
        ended = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"2 3\n"), ended.stderr.decode()

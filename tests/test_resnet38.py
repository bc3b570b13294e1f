"""WideResNet-38: its names, its shapes, its arithmetic, and what happens to files that are not its weights."""

import math
import os
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from wsss import UserError
from wsss.resnet38 import ResNet38, load_published
from wsss.weights import read_foreign_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter"),  # what most tests load into has no memory
    pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
]

# The published layout, written down from the description: blocks and widths of a group, then the two bottlenecks.
PLAIN_GROUPS = {2: (3, 64, 128, 128), 3: (3, 128, 256, 256), 4: (6, 256, 512, 512), 5: (3, 512, 512, 1024)}
BOTTLENECKS = {6: (1024, 512, 1024, 2048), 7: (2048, 1024, 2048, 4096)}
BN = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}


def published_layout():
    """(name in the .pth, name in the mxnet file, shape) of everything but the classifier."""
    rows = [("conv1a.weight", "conv1a_weight", (64, 3, 3, 3))]

    def conv(block, mx_block, branch, c_out, c_in, kernel):
        rows.append((f"{block}.conv_{branch}.weight", f"res{mx_block}_{branch}_weight", (c_out, c_in, kernel, kernel)))

    def bn(block, mx_block, branch, c):
        rows.extend((f"{block}.bn_{branch}.{t}", f"bn{mx_block}_{branch}_{m}", (c,)) for t, m in BN.items())

    for group, (blocks, c_in, c_mid, c_out) in PLAIN_GROUPS.items():
        for i in range(blocks):
            names = (f"b{group}_{i}", f"{group}b{i}") if i else (f"b{group}", f"{group}a")
            first = c_out if i else c_in
            bn(*names, "branch2a", first)
            conv(*names, "branch2a", c_mid, first, 3)
            bn(*names, "branch2b1", c_mid)
            conv(*names, "branch2b1", c_out, c_mid, 3)
            if i == 0:
                conv(*names, "branch1", c_out, c_in, 1)
    for group, (c_in, c_quarter, c_half, c_out) in BOTTLENECKS.items():
        names = (f"b{group}", f"{group}a")
        bn(*names, "branch2a", c_in)
        conv(*names, "branch2a", c_quarter, c_in, 1)
        bn(*names, "branch2b1", c_quarter)
        conv(*names, "branch2b1", c_half, c_quarter, 3)
        bn(*names, "branch2b2", c_half)
        conv(*names, "branch2b2", c_out, c_half, 1)
        conv(*names, "branch1", c_out, c_in, 1)
    rows.extend((f"bn7.{t}", f"bn7_{m}", (4096,)) for t, m in BN.items())
    return rows


LAYOUT = published_layout()
AUX = ("moving_mean", "moving_var")
LAYOUTS = {
    "pth": [pth for pth, _, _ in LAYOUT],
    "pth, DataParallel": [f"module.{pth}" for pth, _, _ in LAYOUT],
    "mxnet": [mx for _, mx, _ in LAYOUT],
    "mxnet, as saved": [("aux:" if mx.endswith(AUX) else "arg:") + mx for _, mx, _ in LAYOUT],
}


def weights(names):
    """The layout under `names`; the value of an entry is its place, and none takes more memory than one number."""
    shapes = [shape for _, _, shape in LAYOUT]
    return {name: torch.tensor(float(i)).expand(shapes[i]) for i, name in enumerate(names)}


def without_weights(output_stride=16):
    with torch.device("meta"):
        return ResNet38(output_stride).eval()


@pytest.fixture(scope="module")
def model():
    """The real one, with batch norms that are not the identity. Build it once: it has 105 million weights."""
    torch.manual_seed(0)
    model = ResNet38(16).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.weight.data, 0.5, 2.0),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.2, 2.0),
            ):
                value.uniform_(low, high)
    return model


def stages_by_definition(state, image, b5_stride, b5_dilation, dilation):
    """The network as plain arithmetic on the published names."""

    def activated(name, x):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return (x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]).clamp(min=0)

    def conv(name, x, stride=1, dilation=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation)

    def plain(name, x, stride, first_dilation, dilation):
        a = activated(f"{name}.bn_branch2a", x)
        b = conv(f"{name}.conv_branch2a", a, stride, first_dilation)
        b = conv(f"{name}.conv_branch2b1", activated(f"{name}.bn_branch2b1", b), 1, dilation)
        return b + (conv(f"{name}.conv_branch1", a, stride) if f"{name}.conv_branch1.weight" in state else x)

    def bottleneck(name, x):
        a = activated(f"{name}.bn_branch2a", x)
        b = activated(f"{name}.bn_branch2b1", conv(f"{name}.conv_branch2a", a))
        b = activated(f"{name}.bn_branch2b2", conv(f"{name}.conv_branch2b1", b, 1, dilation))
        return conv(f"{name}.conv_branch2b2", b) + conv(f"{name}.conv_branch1", a)

    x = conv("conv1a", image)
    stages = [x]
    for group, (blocks, *_) in PLAIN_GROUPS.items():
        stride, later_dilation = (b5_stride, b5_dilation) if group == 5 else (2, 1)
        x = plain(f"b{group}", x, stride, 1, later_dilation)
        for i in range(1, blocks):
            x = plain(f"b{group}_{i}", x, 1, later_dilation, later_dilation)
        stages.append(x)
    deep = activated("bn7", bottleneck("b7", bottleneck("b6", x)))
    return [*stages[:4], deep]


# Names and shapes


@pytest.mark.parametrize("output_stride", [8, 16])
def test_has_the_published_names_and_shapes_at_either_stride(output_stride):
    state = without_weights(output_stride).state_dict()
    ours = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert ours == {pth: shape for pth, _, shape in LAYOUT}


def test_is_as_large_as_the_published_file():
    numbers = sum(math.prod(shape) for _, _, shape in LAYOUT)
    assert 401 < 4 * numbers / 2**20 + 0.1 < 402  # MiB; 1-stage-wseg lists its .pth with 402M, names included
    assert len(LAYOUT) == 43 + 4 * 37  # convolutions, batch norms


# Arithmetic


@pytest.mark.parametrize(("output_stride", "late"), [(16, (2, 1, 2)), (8, (1, 2, 4))])
def test_equals_plain_arithmetic_on_the_published_names(model, output_stride, late):
    state = model.state_dict()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        stages = functional_call(without_weights(output_stride), state, (image,))
        expected = stages_by_definition(state, image, *late)
    for got, want in zip(stages, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))
        assert got.std() > 0.01  # a vanished signal would agree with anything
    for got, channels, stride in zip(stages, model.channels, without_weights(output_stride).strides, strict=True):
        assert got.shape == (1, channels, 64 // stride, 64 // stride)


@pytest.mark.parametrize(("output_stride", "strides"), [(16, (1, 2, 4, 8, 16)), (8, (1, 2, 4, 8, 8))])
@pytest.mark.parametrize("size", [(64, 64), (75, 50)])
def test_gives_five_stages_of_the_stated_sizes(output_stride, strides, size):
    model = without_weights(output_stride)
    stages = model(torch.empty(2, 3, *size, device="meta"))
    assert model.strides == strides
    assert model.channels == (64, 128, 256, 512, 4096)
    sizes = [tuple(stage.shape) for stage in stages]
    assert sizes == [(2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(model.channels, strides, strict=True)]


@pytest.mark.parametrize("output_stride", [0, 4, 32])
def test_refuses_another_output_stride(output_stride):
    with pytest.raises(UserError, match=f"8 or 16, got {output_stride}"):
        without_weights(output_stride)


@pytest.mark.parametrize(("block", "rate"), [("b6", 0.3), ("b7", 0.5)])
def test_drops_channels_before_the_last_two_convolutions_of_a_bottleneck(block, rate):
    model = without_weights()
    bottleneck = model.get_submodule(block)
    dropped, seen = {}, {}
    for part in ("2b1", "2b2"):
        dropout = bottleneck.get_submodule(f"dropout_{part}")
        assert isinstance(dropout, nn.Dropout2d)
        assert dropout.p == rate
        dropout.register_forward_hook(lambda _, inputs, output, part=part: dropped.update({part: output}))
        conv = bottleneck.get_submodule(f"conv_branch{part}")
        conv.register_forward_pre_hook(lambda _, inputs, part=part: seen.update({part: inputs[0]}))
    model(torch.empty(1, 3, 64, 64, device="meta"))
    assert seen["2b1"] is dropped["2b1"]
    assert seen["2b2"] is dropped["2b2"]


# Hooks


def test_a_forward_hook_fires_on_every_module():
    model = without_weights()
    fired = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: fired.append(name))
    model(torch.empty(1, 3, 64, 64, device="meta"))
    assert sorted(fired) == sorted(name for name, _ in model.named_modules())
    blocks = [f"b{g}_{i}" if i else f"b{g}" for g, (n, *_) in PLAIN_GROUPS.items() for i in range(n)]
    assert {*blocks, "b6", "b7", "bn7"} <= set(fired)


def test_a_hook_sees_the_very_tensor_of_each_stage():
    model = without_weights()
    seen = {}
    for name in model.stage_modules:
        model.get_submodule(name).register_forward_hook(lambda _, i, output, name=name: seen.update({name: output}))
    stages = model(torch.empty(1, 3, 64, 64, device="meta"))
    assert len(stages) == len(model.stage_modules)
    for stage, name in zip(stages, model.stage_modules, strict=True):
        assert stage is seen[name]


def test_nothing_edits_a_tensor_that_a_hook_has_seen():
    model = without_weights()
    seen = {}
    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(lambda _, i, output, name=name: seen.update({name: (output, output._version)}))
    model(torch.empty(1, 3, 64, 64, device="meta"))
    assert [name for name, (output, version) in seen.items() if output._version != version] == []


# Published weights


@pytest.mark.parametrize("layout", ["pth", "mxnet, as saved"])
def test_reads_and_loads_both_layouts_entry_by_entry(layout, tmp_path):
    whole = {name: value.contiguous() for name, value in weights(LAYOUTS[layout]).items()}
    torch.save(whole, tmp_path / "weights.pth")
    model = without_weights().to_empty(device="cpu")  # memory, but no time spent on random numbers
    load_published(model, read_foreign_weights(tmp_path / "weights.pth"))
    state = model.state_dict()
    for i, (name, _, shape) in enumerate(LAYOUT):
        assert state[name].shape == shape
        assert state[name].aminmax() == (i, i), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accepts_every_published_way_to_write_the_names(layout):
    load_published(without_weights(), weights(LAYOUTS[layout]))


@pytest.mark.parametrize(
    ("pth", "mxnet"),
    [
        ("b2.bn_branch2a.running_mean", "bn2a_branch2a_moving_mean"),
        ("b4_5.conv_branch2b1.weight", "res4b5_branch2b1_weight"),
        ("b5.conv_branch1.weight", "res5a_branch1_weight"),
        ("b6.bn_branch2b2.bias", "bn6a_branch2b2_beta"),
        ("bn7.weight", "bn7_gamma"),
    ],
)
def test_pairs_the_names_of_the_two_layouts(pth, mxnet):
    """A few pairs by hand, as the converters of PSA and SEAM make them."""
    state = weights(LAYOUTS["pth"])
    del state[pth]
    with pytest.raises(UserError, match=f"{re.escape(pth)} .* missing"):
        load_published(without_weights(), state)
    load_published(without_weights(), state | {mxnet: weights(LAYOUTS["pth"])[pth]})


@pytest.mark.parametrize("head", ["fc8.weight", "linear1000.weight", "linear1000_weight", "arg:linear1000_bias"])
def test_passes_over_a_classifier(head):
    load_published(without_weights(), weights(LAYOUTS["pth"]) | {head: torch.zeros(1000, 4096)})


def test_takes_the_arrays_that_mxnet_gives():
    model = without_weights()
    model.bn7.to_empty(device="cpu")
    arrays = {name: value.numpy() for name, value in weights(LAYOUTS["mxnet"]).items()}
    load_published(model, arrays | {"bn7_beta": np.full(4096, 0.5, np.float32)})
    assert (model.bn7.bias == 0.5).all()


def test_takes_batch_counters_where_a_file_has_them():
    counters = {
        pth.replace("running_var", "num_batches_tracked"): torch.tensor(7) for pth in LAYOUTS["pth"] if "var" in pth
    }
    model = without_weights()
    model.bn7.to_empty(device="cpu")
    load_published(model, weights(LAYOUTS["pth"]) | counters)
    assert model.bn7.num_batches_tracked == 7


def test_a_missing_key_is_an_error_that_names_it():
    state = weights(LAYOUTS["mxnet"])
    del state["res3b1_branch2a_weight"]
    with pytest.raises(UserError, match=r"b3_1\.conv_branch2a\.weight is missing"):
        load_published(without_weights(), state)


def test_an_unknown_key_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"'layer1\.weight' is unknown"):
        load_published(without_weights(), weights(LAYOUTS["pth"]) | {"layer1.weight": torch.zeros(3, 5)})


@pytest.mark.parametrize("name", ["bn2a_branch2a_weight", "res2a_branch2a_gamma", "bn7_", "bn8a_branch2a_beta", ""])
def test_a_name_that_only_resembles_mxnet_is_unknown(name):
    with pytest.raises(UserError, match=rf"'{name}' is unknown"):
        load_published(without_weights(), weights(LAYOUTS["pth"]) | {name: torch.zeros(1)})


def test_a_wrong_shape_is_an_error_that_names_both():
    state = weights(LAYOUTS["pth"]) | {"bn7.bias": torch.zeros(2048)}
    with pytest.raises(UserError, match=r"bn7\.bias is \(2048,\) instead of \(4096,\)"):
        load_published(without_weights(), state)


def test_many_misfits_make_one_short_sentence():
    with pytest.raises(UserError) as caught:
        load_published(without_weights(), {"layer1.0.weight": torch.zeros(64), "layer1.1.weight": torch.zeros(64)})
    text = str(caught.value)
    assert "conv1a.weight is missing; b2.bn_branch2a.weight is missing" in text
    assert text.endswith("and 190 more")
    assert "\n" not in text
    assert len(text) < 400


def test_one_entry_under_two_names_is_an_error():
    state = weights(LAYOUTS["pth"]) | {"conv1a_weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(UserError, match=r"conv1a\.weight twice, the second time as conv1a_weight"):
        load_published(without_weights(), state)


def test_a_refused_load_leaves_the_model_and_the_state_as_they_were():
    model = without_weights()
    model.conv1a.to_empty(device="cpu")
    nn.init.ones_(model.conv1a.weight)
    state = weights(LAYOUTS["pth"])
    del state["bn7.bias"]
    names = list(state)
    with pytest.raises(UserError):
        load_published(model, state)
    assert (model.conv1a.weight == 1).all()
    assert list(state) == names


# Files


class Exploit:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def one_sentence(error):
    text = str(error)
    return "\n" not in text and "weights_only" not in text and "torch.load" not in text and "pickle" not in text


def test_a_file_that_holds_more_than_tensors_is_refused_and_not_run(tmp_path):
    torch.save({"conv1a.weight": Exploit(str(tmp_path / "made"))}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth: contains code or unknown objects") as caught:
        read_foreign_weights(tmp_path / "weights.pth")
    assert one_sentence(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b"PK\x03\x04 a torn archive", b"\x80\x02]q\x00.", b"\x80\x05\xff"]
)
def test_a_broken_file_is_one_sentence(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth: ") as caught:
        read_foreign_weights(tmp_path / "weights.pth")
    assert one_sentence(caught.value)


def test_a_truncated_file_is_one_sentence(tmp_path):
    torch.save(weights(LAYOUTS["pth"]), tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"weights\.pth: is broken") as caught:
        read_foreign_weights(tmp_path / "weights.pth")
    assert one_sentence(caught.value)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        read_foreign_weights(tmp_path / "none.pth")
    with pytest.raises(UserError, match="is not a regular file"):
        read_foreign_weights(tmp_path)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {}, {1: torch.zeros(3)}])
def test_a_file_must_hold_a_dict_of_names(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="does not fit: "):
        read_foreign_weights(tmp_path / "weights.pth")


def test_an_entry_that_is_no_tensor_is_named(tmp_path):
    torch.save({"conv1a.weight": torch.zeros(3), "epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="'epoch' is not the weight of a layer"):
        read_foreign_weights(tmp_path / "weights.pth")

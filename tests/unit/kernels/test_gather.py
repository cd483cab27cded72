"""The kernel, compared with float64 and torch, and the cases that it leaves to torch."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lamina import Images, Recipe, Training
from lamina.kernels.gather import Moves
from lamina.kernels.library import LEVELS, Kernels, NoKernels, load_kernels
from lamina.nets import Conv2d, Flatten, Linear, Net, Output, ReLU, Whiten
from lamina.training.augment import Selection, draw_choices
from lamina.training.model import Model
from lamina.training.task import task_of
from support.built_kernels import load
from support.examples import count_examples
from support.trainings import random_images

CPU = torch.device("cpu")
MOVES = Recipe(flip="random", translate_px=3, cutout_px=4)
IMAGES = random_images(40, 9, width_px=7)
LAYOUTS = ["channels last", "channels first"]


def build(images: Images, layout: str = "channels last") -> Model:
    channels = images.shape[0]
    mean, std = (
        [120 + 7.3 * channel for channel in range(channels)],
        [60 + channel / 3 for channel in range(channels)],
    )
    body = nn.Sequential(nn.Conv2d(channels, 3, 1) if layout == "channels last" else nn.Flatten())
    return Model(body, net=None, task=task_of(images), in_shape=images.shape, mean=mean, std=std)


def select(images: Images, recipe: Recipe = MOVES, indices: Tensor | None = None) -> Selection:
    pixels = torch.from_numpy(images.pixels)
    indices = torch.arange(len(images)) if indices is None else indices
    return Selection(pixels, indices, draw_choices(recipe, 0, pixels), 1, CPU)


def transform_by_hand(selection: Selection, place: int, model: Model) -> np.ndarray:
    """One image in NumPy and float64."""
    choices, index = selection.choices, int(selection.indices[place])
    image = selection.pixels[index].numpy().astype(np.float64)
    height, width, _ = image.shape
    if choices.flips is not None and choices.flips[index]:
        image = image[:, ::-1]
    if choices.translations_px is not None:
        down, right = choices.translations_px[index].tolist()
        most = max(abs(down), abs(right))
        padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="reflect")
        image = padded[
            most - down : most - down + height, most - right : most - right + width
        ].copy()
    if choices.holes_px is not None:
        y, x = (choices.holes_px[index] - choices.cutout_px // 2).tolist()
        side = choices.cutout_px
        image = image.copy()
        image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = 128
    return ((image - np.array(model.mean)) / np.array(model.std)).transpose(2, 0, 1)


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=count_examples(80))
@given(
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    sides=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    indices=st.lists(st.integers(0, 8), min_size=1, max_size=12),
    recipe=st.builds(
        Recipe,
        flip=st.sampled_from(["off", "random", "alternating"]),
        translate_px=st.integers(0, 4),
        cutout_px=st.integers(0, 14),
        seed=st.integers(0, 100),
    ),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_images_have_torchs_bits_and_are_close_to_float64(
    level: str,
    channels: int,
    sides: tuple[int, int],
    indices: list[int],
    recipe: Recipe,
    layout: str,
    dtype: torch.dtype,
) -> None:
    recipe = dataclasses.replace(recipe, translate_px=min(recipe.translate_px, min(sides) - 1))
    images = random_images(9, sides[0], width_px=sides[1], channels=channels, seed=recipe.seed)
    model, selection = build(images, layout), select(images, recipe, torch.tensor(indices))
    found = model.gather(selection, dtype, load(level))
    assert found is not None
    expected = model.normalize(selection.gather()).to(dtype)
    assert torch.equal(found, expected)
    assert found.dtype == dtype and found.stride() == expected.stride()
    reference = np.stack(
        [transform_by_hand(selection, place, model) for place in range(len(indices))]
    )
    tolerance = 1e-6 if dtype == torch.float32 else 2**-8
    assert np.allclose(found.double().numpy(), reference, rtol=tolerance, atol=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_and_repetitions_give_the_same_bits(kernels: Kernels, layout: str) -> None:
    images = random_images(300, 40, width_px=33)
    model, selection = build(images, layout), select(images)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            found.append(model.gather(selection, torch.float32, kernels))
    finally:
        torch.set_num_threads(threads)
    expected = model.normalize(selection.gather())
    assert all(one is not None and torch.equal(one, expected) for one in found)


def test_a_read_only_memory_map_is_gathered_where_it_is(kernels: Kernels, tmp_path: Path) -> None:
    IMAGES.pixels.tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", np.uint8, "r", shape=IMAGES.pixels.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that the tensor must not be written
        pixels = torch.from_numpy(mapped)
    model, selection = build(IMAGES), select(IMAGES)
    found = model.gather(dataclasses.replace(selection, pixels=pixels), torch.float32, kernels)
    assert found is not None and torch.equal(found, model.normalize(selection.gather()))


PIXELS = torch.from_numpy(IMAGES.pixels)
OTHER: dict[str, dict[str, Any]] = {
    "strided": {"pixels": PIXELS.transpose(1, 2).contiguous().transpose(1, 2)},
    "strided indices": {"indices": torch.arange(20)[::2]},
    "empty": {"indices": torch.arange(0)},
    "smaller": {"size_fraction": 0.5},
    "beyond the last image": {"indices": torch.tensor([3, 40])},
    "before the first image": {"indices": torch.tensor([3, -1])},
    "translated out of the image": {"choices": Moves(translations_px=torch.full((40, 2), -7))},
}


@pytest.mark.parametrize("name", OTHER)
def test_other_images_are_left_to_torch(kernels: Kernels, name: str) -> None:
    selection = dataclasses.replace(select(IMAGES), **OTHER[name])
    assert build(IMAGES).gather(selection, torch.float32, kernels) is None


def test_other_models_are_left_to_torch(kernels: Kernels) -> None:
    for model in (build(IMAGES).double(), build(IMAGES).to("meta")):
        assert model.gather(select(IMAGES), torch.float32, kernels) is None


NETS = {
    "mlp": Net(Flatten(), Linear(33), ReLU(), Output()),
    "cnn": Net(Conv2d(8, 3, stride=2, padding="same"), ReLU(), Flatten(), Output()),
    "whitened": Net(Whiten(2), ReLU(), Flatten(), Output()),
}
RECIPES = {
    "plain": (Recipe(), True),
    "moved": (MOVES, True),
    "lanes": (dataclasses.replace(MOVES, lanes=3), True),
}


def train_to_digest(net: Net, images: Images, recipe: Recipe, *, gathers: bool) -> str:
    recipe = dataclasses.replace(recipe, epochs=2, batch_size=17)
    training = Training(net, images, recipe)
    batch = next(next(training._batches.epoch(0)).own)
    assert (training._forward._gather(batch) is not None) == gathers
    list(training)
    return training.digest()


PAIRS = [  # each pair of two values occurs
    ("mlp", "plain", "fp32", 1),
    ("mlp", "moved", "bf16", 3),
    ("mlp", "lanes", "fp32", 3),
    ("cnn", "plain", "bf16", 3),
    ("cnn", "moved", "fp32", 1),
    ("cnn", "lanes", "bf16", 1),
    ("whitened", "plain", "fp32", 3),
    ("whitened", "moved", "bf16", 1),
    ("whitened", "lanes", "fp32", 1),
]


@pytest.mark.parametrize(("net", "name", "precision", "channels"), PAIRS)
def test_epochs_have_the_same_weights_as_without_kernels(
    monkeypatch: pytest.MonkeyPatch, net: str, name: str, precision: str, channels: int
) -> None:
    images, (recipe, gathers) = random_images(40, 12, channels=channels), RECIPES[name]
    recipe = dataclasses.replace(recipe, precision=precision)
    monkeypatch.setenv("LAMINA_KERNELS", "off")
    expected = train_to_digest(NETS[net], images, recipe, gathers=False)
    for level in ("avx2", "avx512"):
        if isinstance(kernels := load_kernels(level), NoKernels):
            pytest.skip(kernels.reason)
        monkeypatch.setenv("LAMINA_KERNELS", level)
        assert train_to_digest(NETS[net], images, recipe, gathers=gathers) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_hooks_see_bytes_and_float32(kernels: Kernels, precision: str) -> None:
    for whole, dtype in ((True, torch.uint8), (False, torch.float32)):
        training = Training(
            NETS["cnn"], IMAGES, Recipe(epochs=1, batch_size=20, precision=precision)
        )
        seen: list[torch.dtype] = []
        module = training.model if whole else training.model.body[0]
        module.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].dtype))
        list(training)
        assert set(seen) == {dtype}


def test_a_module_of_your_own_is_given_float32(kernels: Kernels) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(3 * 9 * 7, 3), set()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add(x.dtype)
            return self.layer(x.flatten(1))

    own = Own()
    list(Training(own, IMAGES, Recipe(epochs=1, precision="bf16")))
    assert own.seen == {torch.float32}

"""A step sees the same images wherever the pixels are kept and wherever the epoch begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamina.nets import Flatten, Net, Output
from lamina.training import batches
from lamina.training.batches import Batch, Batches, find_resident_bytes
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.trainings import random_images

CPU = torch.device("cpu")
RECIPE = Recipe(
    epochs=4,
    batch_size=5,
    flip="random",
    translate_px=2,
    cutout_px=3,
    start_size_fraction=0.5,
    class_weights=True,
)


def are_equal(one: Batch, other: Batch) -> bool:
    tensors = (
        (one.indices, other.indices),
        (one.pixels, other.pixels),
        (one.targets, other.targets),
    )
    return (one.epoch, one.step) == (other.epoch, other.step) and all(
        torch.equal(*pair) for pair in tensors
    )


def show(batches: Batches, epoch: int, first_step: int = 0) -> list[Batch]:
    return [batch for divided in batches.epoch(epoch, first_step) for batch in divided.batches]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    batches = Batches(random_images(21), RECIPE, CPU)
    epochs = [
        torch.cat([batch.indices for batch in show(batches, epoch)]).tolist() for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(21))
    assert epochs[0] != epochs[1]
    # no batch of a single image
    assert [len(batch.indices) for batch in show(batches, 0)] == [5, 5, 5, 6]
    assert len(batches) == 4


@pytest.mark.parametrize("first_step", [0, 2, 4])
def test_an_epoch_that_begins_in_the_middle_has_the_same_batches(first_step):
    batches = Batches(random_images(21), RECIPE, CPU)
    whole, rest = show(batches, 1), show(batches, 1, first_step)
    assert len(rest) == 4 - first_step
    assert all(are_equal(*pair) for pair in zip(whole[first_step:], rest, strict=True))


def test_a_batch_holds_the_targets_and_weights_of_its_images():
    images = random_images(21)
    counts = np.bincount(images.targets, minlength=3)
    for batch in show(Batches(images, RECIPE, CPU), 0):
        targets = images.targets[batch.indices.numpy()]
        assert batch.targets.tolist() == targets.tolist()
        assert batch.weights is not None
        assert batch.weights.numpy() == pytest.approx(21 / 3 / counts[targets])


def test_pixels_that_stay_on_the_host_give_the_same_batches(monkeypatch):
    # The meta device stands for a GPU: it takes copies and computes shapes, and keeps no numbers.
    images = random_images(21)
    here = Batches(images, RECIPE, CPU)
    size = images.pixels.nbytes
    monkeypatch.setattr(batches, "find_resident_bytes", lambda _: size - 1)
    away = Batches(images, RECIPE, torch.device("meta"))
    assert away._pixels.device == CPU
    monkeypatch.setattr(batches, "find_resident_bytes", lambda _: size)
    resident = Batches(images, RECIPE, torch.device("meta"))
    assert resident._pixels.device.type == "meta"
    for one, other in zip(show(here, 0), show(away, 0), strict=True):
        assert one.pixels.shape == other.pixels.shape
        assert {other.pixels.device.type, other.indices.device.type, other.targets.device.type} == {
            "meta"
        }


def test_a_cpu_keeps_every_set():
    assert find_resident_bytes(CPU) == float("inf")


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA here, or LAMINA_TEST_CUDA is not set"
)
def test_pinned_batches_are_those_of_pixels_on_the_gpu(monkeypatch):
    cuda = torch.device("cuda")
    resident = Batches(random_images(21), RECIPE, cuda)
    monkeypatch.setattr(batches, "find_resident_bytes", lambda _: 0)
    pinned = Batches(random_images(21), RECIPE, cuda)
    assert pinned._pixels.device == CPU
    assert all(are_equal(*pair) for pair in zip(show(resident, 1), show(pinned, 1), strict=True))


def test_a_training_takes_its_pixels_as_they_lie_in_memory():
    images = random_images(21)
    training = Training(Net(Flatten(), Output()), images, Recipe(epochs=1))
    assert training._batches._pixels.data_ptr() == images.pixels.ctypes.data

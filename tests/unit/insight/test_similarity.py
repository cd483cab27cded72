"""Injected copies are found: translated, mirrored, recolored, compressed; others are not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image, ImageEnhance

from lamina.data import Images
from lamina.insight import neighbors, similarity
from lamina.insight.neighbors import find_neighbors
from lamina.insight.similarity import (
    DuplicatePair,
    compare_images,
    compute_signatures,
    find_near_duplicates,
    group_copies,
    group_pairs,
)

CHANGES = ("shifted", "mirrored", "compressed", "recolored")


def change(pixels: np.ndarray, how: str, random: np.random.Generator) -> np.ndarray:
    """A copy as the near-duplicates of this world are."""
    height, width, channels = pixels.shape
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    match how:
        case "shifted":
            down, right = [(1, 2), (-2, 1), (0, -2), (2, 0)][random.integers(4)]
            padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="edge")
            return padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]
        case "mirrored":
            return pixels[:, ::-1]
        case "compressed":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=50)
            return np.asarray(Image.open(file)).reshape(pixels.shape)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(random.uniform(0.9, 1.1))
    return np.asarray(image).reshape(pixels.shape)


def draw_images(count: int, side_px: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth random fields, whose spectrum falls like that of photographs, with a little noise."""
    random = np.random.default_rng(seed)
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(side_px), np.fft.fftfreq(side_px)))
    spectrum = (
        random.normal(size=(count, channels, side_px, side_px))
        / np.maximum(frequencies, 1 / side_px) ** 1.6
    )
    planes = scipy.fft.ifft2(spectrum * np.exp(2j * np.pi * random.random(spectrum.shape))).real
    planes = 0.2 * planes + 0.8 * planes[:, :1]
    planes = (planes - planes.mean((2, 3), keepdims=True)) / planes.std((2, 3), keepdims=True)
    return (128 + 45 * planes).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def inject(pixels: np.ndarray, copies: int) -> tuple[np.ndarray, dict[tuple[int, int], str]]:
    random = np.random.default_rng(5)
    injected = {(place, len(pixels) + place): CHANGES[place % 4] for place in range(copies)}
    made = [change(np.asarray(pixels[first]), how, random) for (first, _), how in injected.items()]
    return np.concatenate([pixels, np.stack(made)]), injected


@pytest.mark.parametrize(("side_px", "channels"), [(32, 3), (28, 1), (96, 3)])
def test_planted_copies_are_found_and_nothing_else(side_px, channels):
    pixels, injected = inject(draw_images(200, side_px, channels), 40)
    pairs = find_near_duplicates(pixels)
    assert {(pair.first, pair.second) for pair in pairs} == set(injected)
    assert all(pair.mirrored == (injected[pair.first, pair.second] == "mirrored") for pair in pairs)
    distances = [pair.distance for pair in pairs]
    assert distances == sorted(distances)
    assert distances[0] < 0.02


def test_copies_in_a_data_set_have_names_splits_and_groups():
    pixels, injected = inject(draw_images(60), 20)
    targets = np.arange(80) % 2
    names = [f"{row}.png" for row in range(80)]
    train = Images(pixels[:60], targets[:60], ("a", "b"), tuple(names[:60]), "train")
    test = Images(pixels[60:], targets[60:], ("a", "b"), tuple(names[60:]), "test")
    found = compare_images([train, test])
    assert {(pair.first, pair.second) for pair in found.pairs} == set(injected)
    assert found.near_train == {"test": 20}
    for pair, value in zip(found.pairs, found.to_json()["pairs"], strict=True):
        assert (value["first"], value["second"]) == (names[pair.first], names[pair.second])
        assert value["splits"] == ["train", "test"]
    heads, rows = found.group_table()
    assert heads == ("image", "group")
    assert {frozenset(row) for row in rows if row[0] != row[1]} == {
        frozenset((names[first], names[second])) for first, second in injected
    }
    assert len(rows) == 40
    assert str(found).startswith("20 pairs of near-duplicates, 20 of them across splits\n")
    assert "20 of the 20 images of test have near-duplicates in train" in found._repr_html_()


def test_images_of_one_color_are_no_duplicates():
    flat = np.repeat(np.arange(0, 250, 25, dtype=np.uint8), 32 * 32 * 3).reshape(10, 32, 32, 3)
    assert find_near_duplicates(np.concatenate([flat, flat])) == ()


def test_a_likeness_of_layout_is_no_duplicate():
    """Sky above sea and sky above grass: the same two bands, but of other colors."""
    bands = np.zeros((2, 32, 32, 3), np.uint8)
    bands[:, :16] = (120, 160, 220)
    bands[0, 16:], bands[1, 16:] = (20, 60, 140), (60, 140, 30)
    bands += np.random.default_rng(0).integers(0, 12, bands.shape, dtype=np.uint8)
    assert find_near_duplicates(bands) == ()


def test_signatures_are_the_cosine_transform_in_any_blocks(monkeypatch):
    pixels = draw_images(37)
    signatures = compute_signatures(pixels)
    expected = scipy.fft.dctn(pixels.mean(axis=3), norm="ortho", axes=(1, 2))[:, :8, :8]
    # The constant's row and column have another factor in the orthonormal transform.
    expected[:, 0] *= np.sqrt(2)
    expected[:, :, 0] *= np.sqrt(2)
    expected = expected.reshape(37, 64)[:, 1:]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(signatures.numpy(), expected, atol=1e-4)
    likeness, rows = find_neighbors(signatures, signatures, 4)
    for module in (similarity, neighbors):
        monkeypatch.setattr(module, "BLOCK", 10)
    again = find_neighbors(compute_signatures(pixels), signatures, 4)
    assert torch.allclose(again[0], likeness, atol=1e-5)
    assert torch.equal(again[1], rows)
    cosines = expected @ expected.T
    assert np.array_equal(rows.numpy(), np.argsort(-cosines, axis=1)[:, :4])


def test_pairs_connect_groups():
    pairs = [
        DuplicatePair(4, 5, 0.1, False),
        DuplicatePair(0, 5, 0.1, False),
        DuplicatePair(1, 2, 0.1, False),
    ]
    assert group_pairs(6, pairs) == [0, 1, 1, 3, 0, 0]


def test_identical_images_are_one_group_even_of_one_color():
    pixels, _ = inject(draw_images(30), 4)
    pixels = np.concatenate([pixels, np.full((12, 32, 32, 3), 200, np.uint8), pixels[9:10]])
    groups = group_copies(pixels, find_near_duplicates(pixels))
    assert groups[:34] == [*range(30), *range(4)]
    assert groups[34:] == [34] * 12 + [9]


def test_a_black_image_of_each_group_does_not_unite_all_groups():
    pixels, _ = inject(draw_images(30), 2)  # the last two are copies of the first two
    pixels[2::3] = 0
    patients = [f"p{row // 3}" for row in range(30)] + ["p8", "p9"]
    groups = group_copies(pixels, (), patients)
    assert groups == [row // 3 * 3 for row in range(30)] + [24, 27]
    pixels[30] = pixels[0]
    assert group_copies(pixels, (), patients)[24:31] == [0, 0, 0, 27, 27, 27, 0]


@pytest.mark.parametrize("grouped", ["train", "test"])
def test_groups_of_one_split_stay_with_its_images(grouped):
    """Images of the other split are their own groups, even with names that are groups' names."""
    splits = []
    for split, seed in (("train", 1), ("test", 2)):
        names = ("p0", "p1", "p2", "p3")
        images = Images(draw_images(4, seed=seed), np.array([0, 1, 0, 1]), ("a", "b"), names, split)
        if split == grouped:
            images = replace(images, groups=("p0", "p0", "p1", "p1"))
        splits.append(images)
    groups = compare_images(splits).groups
    expected = {"train": (0, 0, 2, 2, 4, 5, 6, 7), "test": (0, 1, 2, 3, 4, 4, 6, 6)}
    assert groups == expected[grouped]


def test_planted_copies_of_real_images_are_found(cifar10):
    pixels, injected = inject(np.asarray(cifar10.train.take_evenly(1500).pixels), 100)
    found = {(pair.first, pair.second) for pair in find_near_duplicates(pixels)}
    assert len(found & set(injected)) >= 95
    assert len(found - set(injected)) <= 5  # the set has a few of its own

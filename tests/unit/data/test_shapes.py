"""The drawn set: the same for the same seed, its targets true of what is seen."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import draw_shapes
from lamina.data.sources.drawn import (
    KINDS,
    Figures,
    draw_figures,
    hsv_to_rgb,
    outline,
    polygon_distance,
)
from support.shape_masks import mask_shapes


def test_the_same_seed_draws_the_same_and_another_draws_others() -> None:
    first, same, other = (draw_shapes("shapes", "train", 60, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.pixels, same.pixels)
    np.testing.assert_array_equal(first.targets, same.targets)
    assert (first.pixels != other.pixels).any(axis=(1, 2, 3)).all()


@pytest.mark.nightly  # 60 images of 512 px; their number in a step changes only with drawing
def test_large_images_are_drawn_a_few_at_a_time() -> None:
    """The arrays of one step need up to 400 MB, where those of 60 images would need 1.2 GB."""
    tracemalloc.start()
    try:
        images = draw_shapes("shapes", "train", 60, 0, size_px=512)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.shape == (3, 512, 512)
    assert peak_bytes - images.pixels.nbytes < 400 * 2**20


def test_kinds_and_attributes_are_of_the_same_images() -> None:
    kinds, attributes = (
        draw_shapes(target, "test", 60, 5) for target in ("shapes", "shapes-attributes")
    )
    np.testing.assert_array_equal(kinds.pixels, attributes.pixels)


@pytest.mark.parametrize(
    ("name", "dtype", "target_names"),
    [
        ("shapes", np.int64, KINDS),
        ("shapes-attributes", np.bool_, ("large", "outlined", "striped", "warm")),
        ("shapes-pose", np.float32, ("angle_radians", "size_fraction")),
    ],
)
def test_each_set_has_its_kind_of_target(name, dtype, target_names: tuple[str, ...]) -> None:
    images = draw_shapes(name, "train", 300, 0)
    assert images.targets.dtype == dtype
    assert images.target_names == target_names
    assert images.shape == (3, 32, 32)
    assert images.names[299] == "train/00299"


def test_classes_and_attributes_are_common_enough_to_learn() -> None:
    kinds = draw_shapes("shapes", "train", 1000, 0).target_counts()
    assert min(kinds.values()) > 70
    attributes = draw_shapes("shapes-attributes", "train", 1000, 0).target_counts()
    assert all(250 < count < 550 for count in attributes.values())


def test_masks_are_of_the_images_of_the_built_in_set() -> None:
    """A filled shape without stripes has one color, but for the noise, only inside its mask."""
    images, masks = (
        draw_shapes("shapes-attributes", "test", 200, 2),
        mask_shapes("shapes-attributes", "test", 200),
    )
    _, is_outlined, is_striped, _ = images.targets.T
    plain = np.flatnonzero(~is_outlined & ~is_striped)
    pixels = images.pixels[plain].astype(np.float64)
    inner = (
        masks
        & np.roll(masks, 1, 1)
        & np.roll(masks, -1, 1)
        & np.roll(masks, 1, 2)
        & np.roll(masks, -1, 2)
    )
    spreads = [
        image[mask].std(axis=0).max() for image, mask in zip(pixels, inner[plain], strict=True)
    ]
    elsewhere = [
        image[mask].std(axis=0).max()
        for image, mask in zip(pixels, np.roll(inner, 1, 0)[plain], strict=True)
    ]
    assert max(spreads) < 20 < np.median(elsewhere)
    np.testing.assert_array_equal(mask_shapes("shapes", "test", 200), masks)


def test_the_angle_is_never_ambiguous() -> None:
    angle, size = draw_shapes("shapes-pose", "train", 1000, 0).targets.T
    assert -np.pi / 2 <= angle.min() < -1.5
    assert 1.5 < angle.max() <= np.pi / 2
    assert 0.4 <= size.min() < 0.41
    assert 0.79 < size.max() <= 0.8


def draw_one(
    kind: str, radius: float, angle: float = 0.0, attributes: tuple[str, ...] = (), hue: float = 0.6
):
    names = ("large", "outlined", "striped", "warm")
    figures = Figures(
        np.array([KINDS.index(kind)]),
        np.array([angle]),
        np.array([radius]),
        np.array([[0.5, 0.5]]),
        np.array([hue]),
        np.array([[name in attributes for name in names]]),
    )
    return draw_figures(np.random.default_rng(0), figures, 64)[0].astype(int)


def covered_by(kind: str, **options) -> np.ndarray:
    """Where the image differs from one whose shape is too small to see."""
    return np.abs(draw_one(kind, 0.4, **options) - draw_one(kind, 1e-6)).max(axis=2) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_as_large_as_its_size_says(kind: str) -> None:
    rows, columns = np.nonzero(covered_by(kind))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    assert 0.7 * 0.8 * 64 <= extent <= 0.8 * 64 + 1


@pytest.mark.parametrize(
    ("angle", "turns"), [(0.0, 0), (np.pi / 2, -1), (np.pi, 2), (-np.pi / 2, 1)]
)
def test_angles_go_clockwise_from_upright(angle: float, turns: int) -> None:
    # An upright arrow is widest in its upper half; np.rot90 turns anticlockwise.
    seen = covered_by("arrow", angle=angle)
    upright = np.rot90(seen, -turns)
    assert upright[:32].sum(axis=1).max() > 1.5 * upright[40:].sum(axis=1).max()
    assert np.mean(seen == np.rot90(covered_by("arrow"), turns)) > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_outlined_figures_are_hollow_and_striped_ones_are_not(kind: str) -> None:
    filled = covered_by(kind).sum()
    assert covered_by(kind, attributes=("outlined",)).sum() < 0.8 * filled
    striped = draw_one(kind, 0.4, attributes=("striped",)) != draw_one(kind, 0.4)
    assert 0.3 * filled < striped.any(axis=2).sum() < filled + 40


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_closed_and_within_the_unit_circle(kind: str) -> None:
    corners = outline(kind)
    assert np.hypot(*corners.T).max() <= 1.05
    middle = np.float32([0.6 if kind == "crescent" else 0.0])
    assert polygon_distance(corners, np.float32([0.0]), middle) < -0.15
    assert polygon_distance(corners, np.float32([3.0]), middle) > 1.8


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_the_distance_to_a_square_is_the_published_formula(x: float, y: float) -> None:
    # Quilez, "sdBox": length(max(d, 0)) + min(max(d.x, d.y), 0) with d = |p| - side / 2.
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    out = np.abs([x, y]) - 0.5
    expected = np.hypot(*np.maximum(out, 0)) + min(out.max(), 0)
    got = polygon_distance(square, np.array([x], np.float32), np.array([y], np.float32))
    np.testing.assert_allclose(got, [expected], atol=1e-5)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_colors_are_those_of_the_standard_library(
    hue: float, saturation: float, value: float
) -> None:
    import colorsys

    got = hsv_to_rgb(*(np.array([part]) for part in (hue, saturation, value)))
    np.testing.assert_allclose(got[0], colorsys.hsv_to_rgb(hue, saturation, value), atol=1e-6)

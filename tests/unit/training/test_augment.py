import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamina.training.augment import Choices, draw_choices, gather_batch, shrink_batch
from lamina.training.recipe import Recipe


def augment_by_hand(image, flipped, translate_px, hole_px, side_px):
    """One image in plain NumPy: mirror, shift with a reflected border, blank."""
    if flipped:
        image = image[:, ::-1]
    furthest = int(np.abs(translate_px).max(initial=0))
    height, width, _ = image.shape
    padded = np.pad(image, ((furthest, furthest), (furthest, furthest), (0, 0)), mode="reflect")
    top, left = furthest - translate_px[0], furthest - translate_px[1]
    moved = padded[top : top + height, left : left + width].copy()
    if side_px:
        top, left = hole_px[0] - side_px // 2, hole_px[1] - side_px // 2
        moved[max(top, 0) : max(top + side_px, 0), max(left, 0) : max(left + side_px, 0)] = 128
    return moved


@settings(max_examples=30, deadline=None)
@given(
    flip=st.sampled_from(["off", "random", "alternating"]),
    translate_px=st.integers(0, 5),
    cutout_px=st.integers(0, 9),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_a_batch_is_what_each_image_would_be_by_hand(flip, translate_px, cutout_px, epoch, seed):
    pixels = torch.randint(
        0, 256, (12, 9, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    recipe = Recipe(flip=flip, translate_px=translate_px, cutout_px=cutout_px, seed=seed)
    choices = draw_choices(recipe, epoch, pixels)
    indices = torch.tensor([3, 0, 11, 3])
    batch = gather_batch(pixels, indices, choices)
    for row, index in enumerate(indices.tolist()):
        by_hand = augment_by_hand(
            pixels[index].numpy(),
            flipped=choices.flips is not None and bool(choices.flips[index]),
            translate_px=(
                np.zeros(2, int)
                if choices.translations_px is None
                else choices.translations_px[index].numpy()
            ),
            hole_px=None if choices.holes_px is None else choices.holes_px[index].numpy(),
            side_px=cutout_px,
        )
        assert np.array_equal(batch[row].numpy(), by_hand)


def test_alternating_flips_show_images_both_ways_in_two_epochs():
    pixels = torch.zeros(100, 4, 4, 3, dtype=torch.uint8)
    first, second, third = (
        draw_choices(Recipe(flip="alternating"), epoch, pixels).flips for epoch in range(3)
    )
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 30 < first.sum() < 70


def test_choices_depend_on_seed_and_epoch_alone():
    pixels = torch.zeros(50, 8, 8, 3, dtype=torch.uint8)
    recipe = Recipe(
        flip="random",
        translate_px=2,
        cutout_px=3,
        crop_from_fraction=0.3,
        seed=5,
    )
    torch.manual_seed(1)
    once = draw_choices(recipe, 4, pixels)
    torch.manual_seed(2)
    again, later = draw_choices(recipe, 4, pixels), draw_choices(recipe, 5, pixels)
    for name in ("flips", "translations_px", "holes_px", "crops"):
        assert torch.equal(getattr(once, name), getattr(again, name))
        assert not torch.equal(getattr(once, name), getattr(later, name))


def test_translations_reach_every_distance_and_no_farther():
    choices = draw_choices(Recipe(translate_px=2), 0, torch.zeros(1000, 8, 8, 3, dtype=torch.uint8))
    assert choices.translations_px.unique().tolist() == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("flip", ["off", "random"])
def test_gathering_leaves_the_images_as_they_are(flip):
    pixels = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    before = pixels.clone()
    recipe = Recipe(flip=flip, cutout_px=8)
    gather_batch(pixels, torch.arange(5), draw_choices(recipe, 0, pixels))
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("fraction", [0.5, 0.625, 0.875])
@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_is_what_pillow_makes_of_each_image(fraction, channels):
    pixels = torch.randint(
        0, 256, (4, 24, 32, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    shrunk = shrink_batch(pixels, fraction)
    size = round(32 * fraction), round(24 * fraction)
    by_pillow = [
        np.asarray(
            Image.fromarray(by_pillow.squeeze(-1).numpy()).resize(size, Image.Resampling.BILINEAR)
        )
        for by_pillow in pixels
    ]
    difference = shrunk.numpy().astype(int) - np.stack(by_pillow).reshape(shrunk.shape)
    assert np.abs(difference).max() <= 1  # either rounds once in each direction


def test_whole_images_are_not_touched():
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    assert shrink_batch(pixels, 1.0) is pixels


def crop_by_pillow(image, crop):
    height, width, _ = image.shape
    top, left, crop_height, crop_width = crop
    box = (left * width, top * height, (left + crop_width) * width, (top + crop_height) * height)
    box = np.clip(box, 0, (width, height, width, height))
    by_pillow = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
    return np.asarray(
        by_pillow.resize((width, height), Image.Resampling.BILINEAR, box=tuple(box))
    ).reshape(image.shape)


@settings(max_examples=30, deadline=None)
@given(
    from_fraction=st.floats(0.05, 0.99),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20), st.sampled_from([1, 3])),
    seed=st.integers(0, 1000),
)
def test_a_crop_is_what_pillow_makes_of_each_image(from_fraction, size, seed):
    pixels = torch.randint(
        0, 256, (6, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    choices = draw_choices(Recipe(crop_from_fraction=from_fraction, seed=seed), 0, pixels)
    batch = gather_batch(pixels, torch.arange(6), choices)
    by_pillow = [
        crop_by_pillow(*each) for each in zip(pixels.numpy(), choices.crops.tolist(), strict=True)
    ]
    # A place is rounded to 1/128 pixel and each direction to a whole number: 1 + 0.5 twice, and
    # Pillow's own halves.
    assert np.abs(batch.numpy().astype(int) - np.stack(by_pillow)).max() <= 3


@pytest.mark.parametrize("from_fraction", [0.05, 0.5, 0.9])
def test_crops_lie_in_the_image_and_have_area_and_proportions(
    from_fraction,
):
    recipe = Recipe(crop_from_fraction=from_fraction)
    top, left, height, width = (
        draw_choices(recipe, 0, torch.zeros(5000, 8, 8, 3, dtype=torch.uint8)).crops.double().T
    )
    for start, side in ((top, height), (left, width)):
        assert start.min() >= 0
        assert (start + side).max() <= 1 + 1e-6
    area, stretch = height * width, width / height
    assert from_fraction - 1e-5 <= area.min() < from_fraction + 0.01
    assert area.max() > 0.99
    assert area.mean() == pytest.approx((1 + from_fraction) / 2, abs=0.02)
    assert stretch.min() >= 0.75 - 1e-5
    assert stretch.max() <= 4 / 3 + 1e-5
    assert stretch.log().mean() == pytest.approx(0, abs=0.01)
    if from_fraction == 0.05:
        assert stretch.min() < 0.76
        assert stretch.max() > 1.32


ALL = Recipe(flip="random", translate_px=2, cutout_px=3, crop_from_fraction=0.3, seed=7)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11), channels=st.sampled_from([1, 3]))
def test_an_image_is_the_same_in_any_batch(order, cut, channels):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (12, 11, 7, channels), dtype=torch.uint8, generator=generator)
    choices = draw_choices(ALL, 3, pixels)
    whole = gather_batch(pixels, torch.arange(12), choices)
    parts = [
        gather_batch(pixels, rows, choices) for rows in torch.tensor(order).tensor_split([cut])
    ]
    assert torch.equal(torch.cat(parts), whole[order])


def test_flips_and_translations_move_crops_as_whole_images():
    pixels = torch.randint(
        0, 256, (9, 12, 10, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    rows = torch.arange(9)
    choices = draw_choices(ALL, 0, pixels)
    cropped = gather_batch(pixels, rows, Choices(crops=choices.crops))
    moved = gather_batch(
        cropped, rows, Choices(flips=choices.flips, translations_px=choices.translations_px)
    )
    at_once = gather_batch(
        pixels, rows, Choices(choices.flips, choices.translations_px, crops=choices.crops)
    )
    assert torch.equal(at_once, moved)


def test_a_crop_of_the_whole_image_changes_nothing():
    pixels = torch.randint(
        0, 256, (5, 9, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    same = Choices(crops=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(5, 4))
    assert torch.equal(gather_batch(pixels, torch.arange(5), same), pixels)


def test_crops_leave_the_other_choices_as_they_were():
    pixels = torch.zeros(40, 8, 8, 3, dtype=torch.uint8)
    cropped = draw_choices(ALL, 2, pixels)
    whole = draw_choices(dataclasses.replace(ALL, crop_from_fraction=0.0), 2, pixels)
    assert whole.crops is None
    for name in ("flips", "translations_px", "holes_px"):
        assert torch.equal(getattr(cropped, name), getattr(whole, name))


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": "random"},
        {"translate_px": 1},
        {"cutout_px": 1},
        {"crop_from_fraction": 0.5},
    ],
    ids=str,
)
def test_each_augmentation_begins_in_the_first_epoch(changes):
    pixels, none = torch.zeros(4, 8, 8, 3, dtype=torch.uint8), vars(Choices())
    assert vars(draw_choices(Recipe(head="fitted", **changes), 0, pixels)) != none
    assert vars(draw_choices(Recipe(), 0, pixels)) == none

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamina.training.augment import draw_choices, gather_batch, shrink_batch
from lamina.training.recipe import Recipe


def augment_by_hand(image, flipped, shift_px, hole_px, side_px):
    """One image in plain NumPy: mirror, shift with a reflected border, blank."""
    if flipped:
        image = image[:, ::-1]
    furthest = int(np.abs(shift_px).max(initial=0))
    height, width, _ = image.shape
    padded = np.pad(image, ((furthest, furthest), (furthest, furthest), (0, 0)), mode="reflect")
    top, left = furthest - shift_px[0], furthest - shift_px[1]
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
    pixels = torch.randint(0, 256, (12, 9, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    recipe = Recipe(flip=flip, translate_px=translate_px, cutout_px=cutout_px, seed=seed)
    choices = draw_choices(recipe, epoch, pixels)
    indices = torch.tensor([3, 0, 11, 3])
    batch = gather_batch(pixels, indices, choices, cutout_px)
    for row, index in enumerate(indices.tolist()):
        by_hand = augment_by_hand(
            pixels[index].numpy(),
            flipped=choices.flips is not None and bool(choices.flips[index]),
            shift_px=np.zeros(2, int) if choices.shifts_px is None else choices.shifts_px[index].numpy(),
            hole_px=None if choices.holes_px is None else choices.holes_px[index].numpy(),
            side_px=cutout_px,
        )
        assert np.array_equal(batch[row].numpy(), by_hand)


def test_an_alternating_flip_shows_every_image_both_ways_in_two_epochs():
    pixels = torch.zeros(100, 4, 4, 3, dtype=torch.uint8)
    first, second, third = (draw_choices(Recipe(flip="alternating"), epoch, pixels).flips for epoch in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 30 < first.sum() < 70


def test_choices_depend_on_seed_and_epoch_alone():
    pixels = torch.zeros(50, 8, 8, 3, dtype=torch.uint8)
    recipe = Recipe(flip="random", translate_px=2, cutout_px=3, seed=5)
    torch.manual_seed(1)
    once = draw_choices(recipe, 4, pixels)
    torch.manual_seed(2)
    again, later = draw_choices(recipe, 4, pixels), draw_choices(recipe, 5, pixels)
    assert torch.equal(once.shifts_px, again.shifts_px)
    assert torch.equal(once.flips, again.flips)
    assert torch.equal(once.holes_px, again.holes_px)
    assert not torch.equal(once.shifts_px, later.shifts_px)


def test_shifts_reach_every_distance_and_no_farther():
    choices = draw_choices(Recipe(translate_px=2), 0, torch.zeros(1000, 8, 8, 3, dtype=torch.uint8))
    assert choices.shifts_px.unique().tolist() == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("flip", ["off", "random"])
def test_gathering_leaves_the_images_as_they_are(flip):
    pixels = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    before = pixels.clone()
    recipe = Recipe(flip=flip, cutout_px=8)
    gather_batch(pixels, torch.arange(5), draw_choices(recipe, 0, pixels), recipe.cutout_px)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("fraction", [0.5, 0.625, 0.875])
@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_is_what_pillow_makes_of_each_picture(fraction, channels):
    pixels = torch.randint(0, 256, (4, 24, 32, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shrunk = shrink_batch(pixels, fraction)
    size = round(32 * fraction), round(24 * fraction)
    by_pillow = [
        np.asarray(Image.fromarray(picture.squeeze(-1).numpy()).resize(size, Image.Resampling.BILINEAR))
        for picture in pixels
    ]
    difference = shrunk.numpy().astype(int) - np.stack(by_pillow).reshape(shrunk.shape)
    assert np.abs(difference).max() <= 1  # either rounds once in each direction


def test_whole_pictures_are_not_touched():
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    assert shrink_batch(pixels, 1.0) is pixels

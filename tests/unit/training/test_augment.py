import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamina.training.augment import Moves, draw_choices, gather_batch, shrink_batch
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
        seed=5,
    )
    torch.manual_seed(1)
    once = draw_choices(recipe, 4, pixels)
    torch.manual_seed(2)
    again, later = draw_choices(recipe, 4, pixels), draw_choices(recipe, 5, pixels)
    for name in ("flips", "translations_px", "holes_px"):
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


ALL = Recipe(flip="random", translate_px=2, cutout_px=3, seed=7)


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


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": "random"},
        {"translate_px": 1},
        {"cutout_px": 1},
    ],
    ids=str,
)
def test_each_augmentation_begins_in_the_first_epoch(changes):
    pixels, none = torch.zeros(4, 8, 8, 3, dtype=torch.uint8), vars(Moves())
    assert vars(draw_choices(Recipe(head="fitted", **changes), 0, pixels)) != none
    assert vars(draw_choices(Recipe(), 0, pixels)) == none

"""The built-in data set: ten kinds of figures, drawn over clutter.

Positions, sizes, angles and colors are random.

Figures are polygons, antialiased by the signed distance from the center of each pixel to the edge
(Quilez, "2D distance functions", https://iquilezles.org/articles/distfunctions2d/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from PIL import Image

from lamina.data.images import Images, Progress
from lamina.data.preparation import Preparation
from lamina.data.sources.interface import Arrays, Part, Source, join_parts
from lamina.data.splits import Split

Floats: TypeAlias = np.float32 | Float32[np.ndarray, "..."]
Numbers: TypeAlias = Float[np.ndarray, " n"]
Corners: TypeAlias = Float[np.ndarray, "corners 2"]
Plane: TypeAlias = Float32[np.ndarray, "*shape"]
Canvas: TypeAlias = Float32[np.ndarray, "n 3 h w"]
ShapesTarget = Literal["shapes", "shapes-attributes", "shapes-pose"]

SHAPES: tuple[ShapesTarget, ...] = ("shapes", "shapes-attributes", "shapes-pose")
COUNTS: dict[Split, int] = {"train": 8_000, "test": 2_000}
SEEDS: dict[Split, int] = {"train": 1, "test": 2}

KINDS = (
    "arrow",
    "circle",
    "crescent",
    "cross",
    "drop",
    "heart",
    "pentagon",
    "square",
    "star",
    "triangle",
)
# The number of corners, and their radii in turn.
REGULAR_KINDS: dict[str, tuple[int, tuple[float, ...]]] = {
    "circle": (24, (0.88,)),
    "pentagon": (5, (0.95,)),
    "square": (4, (0.98,)),
    "star": (10, (1.0, 0.42)),
    "triangle": (3, (1.0,)),
}
ATTRIBUTES = ("large", "outlined", "striped", "warm")
POSE = ("angle_radians", "size_fraction")
TARGET_NAMES: dict[ShapesTarget, tuple[str, ...]] = {
    "shapes": KINDS,
    "shapes-attributes": ATTRIBUTES,
    "shapes-pose": POSE,
}

# Only these figures have an unambiguous angle.
POSED_KINDS = ("arrow", "crescent", "drop", "heart")

# Increase it when a change draws different images for the same parameters.
DRAWING_VERSION = 1

SMALL_RADIUS_FRACTION = (0.20, 0.28)
LARGE_RADIUS_FRACTION = (0.32, 0.40)
# How far the center of a figure varies within the frame; at 1, a fully connected net learns almost
# nothing.
WANDER_FRACTION = 0.5
# The maximum length of each stroke of clutter; a dot is a stroke of length 0.
CLUTTER_LENGTHS_FRACTION = (0.5, 0.5, 0.3, 0.3, 0.0, 0.0, 0.0)
CHUNK_IMAGES = 250
CHUNK_PIXELS = CHUNK_IMAGES * 128 * 128

SAMPLE_SIZES_PX = (192, 224, 256, 288)
SAMPLE_IMAGES = 10  # of a class and size
SAMPLE_WRONG = {("crescent", 9): "drop", ("drop", 23): "arrow"}
"""What an image shows that does not belong to the class of its folder."""


def open_shapes(name: ShapesTarget, preparation: Preparation) -> Source:
    """Open a built-in set, which is drawn when it is read."""
    size_px = preparation.size_px or 32

    def read(_: Path, progress: Progress) -> Arrays:
        total = sum(COUNTS.values())
        parts: dict[Split | None, Part] = {}
        done = 0
        for split, count in COUNTS.items():
            report = partial(lambda before, now, _: progress(before + now, total), done)
            images = draw_shapes(name, split, count, SEEDS[split], size_px, report)
            parts[split] = Part(images.pixels, images.targets)
            done += count
        arrays = join_parts(name, parts, "the built-in set", lambda y: (y, TARGET_NAMES[name]))
        # Identified by its parameters, not its pixels, which may differ in the last bit between
        # processors.
        content = f"{name} {DRAWING_VERSION} {COUNTS} {SEEDS} {size_px}"
        return replace(arrays, content=content)

    return Source(DRAWING_VERSION, read)


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures to draw, one per image; lengths in fractions of the side, angles in radians."""

    kind: Int64[np.ndarray, " n"]
    angle: Numbers
    radius: Numbers
    centre: Float[np.ndarray, "n 2"]
    hue: Numbers
    attributes: Bool[np.ndarray, "n 4"]


def draw_shapes(
    target: ShapesTarget,
    split: Split,
    count: int,
    seed: int,
    size_px: int = 32,
    progress: Progress | None = None,
) -> Images:
    """Draw RGB images with one figure each, such as a heart or an arrow.

    Equal seeds draw equal images.

    Args:
        target: what to predict. ``shapes``: the kind of figure (10 classes). ``shapes-attributes``:
            its attributes (4 labels). ``shapes-pose``: its angle from upright in radians, -π/2 to
            π/2 clockwise, and its size as a fraction of the image side, 0.4 to 0.8.
        split: the split of the images.
        count: the number of images.
        seed: the random seed.
        size_px: the side of the images in pixels.
        progress: called as ``progress(done, total)``, in images.

    Returns:
        The images.

    >>> images = draw_shapes("shapes", "train", count=100, seed=0)
    >>> images.shape, images.target_names[:3]
    ((3, 32, 32), ('arrow', 'circle', 'crescent'))
    """
    random = np.random.default_rng(seed)
    pixels = np.empty((count, size_px, size_px, 3), np.uint8)
    targets: list[np.ndarray] = []
    chunk = count_chunk(size_px)
    for start in range(0, count, chunk):
        figures = choose_figures(random, min(chunk, count - start), posed=target == "shapes-pose")
        pixels[start : start + chunk] = draw_figures(random, figures, size_px)
        if target == "shapes-pose":
            targets.append(np.stack([figures.angle, 2 * figures.radius], axis=1).astype(np.float32))
        elif target == "shapes":
            targets.append(figures.kind)
        else:
            targets.append(figures.attributes)
        if progress is not None:
            progress(min(start + chunk, count), count)
    names = tuple(f"{split}/{row:05d}" for row in range(count))
    return Images(pixels, np.concatenate(targets), TARGET_NAMES[target], names, split)


def count_chunk(size_px: int) -> int:
    """The number of images to draw at a time, on which the random numbers of an image depend."""
    return max(1, min(CHUNK_IMAGES, CHUNK_PIXELS // size_px**2))


def choose_figures(random: np.random.Generator, count: int, posed: bool) -> Figures:
    """Choose figures at random; ``posed`` figures have an unambiguous angle, from -π/2 to π/2."""
    # Use only Generator.random, whose stream numpy keeps stable across versions.
    kinds = np.array([KINDS.index(kind) for kind in (POSED_KINDS if posed else KINDS)])
    kind = kinds[(random.random(count) * len(kinds)).astype(np.int64)]
    angle = (random.random(count) - 0.5) * (np.pi if posed else 2 * np.pi)
    large, warm = random.random((2, count)) < 0.5
    outlined = random.random(count) < 0.3
    striped = (random.random(count) < 0.5) & ~outlined
    low, high = np.where(
        large, np.array([LARGE_RADIUS_FRACTION]).T, np.array([SMALL_RADIUS_FRACTION]).T
    )
    radius = low + random.random(count) * (high - low)
    centre = 0.5 + WANDER_FRACTION * (random.random((count, 2)) - 0.5) * (1 - 2 * radius[:, None])
    hue = np.where(warm, -0.04, 0.36) + random.random(count) * np.where(warm, 0.17, 0.36)
    attributes = np.stack([large, outlined, striped, warm], axis=1)
    return Figures(kind, angle, radius, centre, hue, attributes)


def outline(kind: str) -> Corners:
    """The corners (x, y) of an upright figure in a unit circle, clockwise; y points down."""
    match kind:
        case "arrow":
            right = [(0.0, -1.0), (0.8, -0.1), (0.32, -0.1), (0.32, 0.95)]
            return np.array(right + [(-x, y) for x, y in reversed(right[1:])])
        case "crescent":
            turn = np.linspace(-0.72 * np.pi, 0.72 * np.pi, 16)
            outer = 0.95 * np.stack([np.sin(turn), np.cos(turn)], axis=1)
            bend = np.linspace(1, -1, 13)[1:-1]
            chord, top = outer[-1]
            inner = np.stack([-chord * bend, top + 0.95 * (1 - bend**2)], axis=1)
            return np.concatenate([outer, inner[::-1]])
        case "cross":
            arm = [(0.32, -0.95), (0.32, -0.32), (0.95, -0.32)]
            quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
            return np.concatenate(
                [np.array(arm) @ np.linalg.matrix_power(quarter.T, turns) for turns in range(4)]
            )
        case "drop":
            turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            return np.stack([0.95 * np.sin(turn) * np.sin(turn / 2) ** 1.5, -np.cos(turn)], axis=1)
        case "heart":
            turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
            across = 16 * np.sin(turn) ** 3
            down = (
                7 * np.cos(2 * turn) + 2 * np.cos(3 * turn) + np.cos(4 * turn) - 12 * np.cos(turn)
            )
            return np.stack([across / 19, (down - 3) / 19], axis=1)
        case _:
            corners, radius = REGULAR_KINDS[kind]
            turn = np.arange(corners) * 2 * np.pi / corners
            radii = np.resize(radius, corners)
            return np.stack([radii * np.sin(turn), -radii * np.cos(turn)], axis=1)


def draw_figures(
    random: np.random.Generator, figures: Figures, size_px: int
) -> UInt8[np.ndarray, "n h w 3"]:
    count = len(figures.kind)
    _, outlined, striped, _ = figures.attributes.T[..., None, None]
    light = random.random(count) < 0.5
    canvas = _background(random, light, size_px)
    distance_px, x, radius_px = place_figures(figures, size_px)
    stroke_px = size_px * 0.07
    distance_px = np.where(
        outlined, np.abs(distance_px + stroke_px / 2) - stroke_px / 2, distance_px
    )
    covered = np.clip(0.5 - distance_px, 0, 1)
    period_px = size_px * 0.16
    wave = np.sin(x * radius_px * (2 * np.pi / period_px)) * (period_px / 4)
    dark_stripe = np.where(striped, np.clip(0.5 + wave, 0, 1), 0)
    saturation = 0.65 + 0.35 * random.random(count)
    value = np.where(light, 0.35, 0.75) + 0.25 * random.random(count)
    color = hsv_to_rgb(figures.hue, saturation, value)[..., None, None]
    paint = color * (1 - 0.55 * dark_stripe[:, None])
    canvas += covered[:, None] * (paint - canvas)
    canvas += (random.random(canvas.shape, np.float32) - 0.5) * 0.16
    # Channels first until here, because numpy is slow along an axis of length three.
    return np.ascontiguousarray(
        np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    )


def place_figures(
    figures: Figures, size_px: int
) -> tuple[Plane, Plane, Float32[np.ndarray, "n 1 1"]]:
    """Each pixel's distance to the edge in px (negative inside), x in radii; the radius in px."""
    # Coordinates of pixel centers relative to an upright figure of radius 1 at the origin.
    pixel = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    sine = np.sin(figures.angle)
    cosine = np.cos(figures.angle)
    numbers = np.stack([*figures.centre.T, sine, cosine, figures.radius]).astype(np.float32)
    centre_x, centre_y, sine, cosine, radius = numbers[..., None, None]
    right = (pixel - centre_x) / radius
    down = (pixel[:, None] - centre_y) / radius
    x = cosine * right + sine * down
    y = cosine * down - sine * right
    radius_px = (figures.radius * size_px).astype(np.float32)[:, None, None]
    distance_px = np.empty_like(x)
    for number in np.unique(figures.kind):
        rows = figures.kind == number
        distance_px[rows] = polygon_distance(outline(KINDS[number]), x[rows], y[rows])
    distance_px *= radius_px
    return distance_px, x, radius_px


def polygon_distance(corners: Corners, x: Plane, y: Plane) -> Plane:
    """The distance from each point to the edge of the polygon, negative inside."""
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, np.bool_)
    for (start_x, start_y), (end_x, end_y) in zip(
        corners, np.roll(corners, -1, axis=0), strict=True
    ):
        edge_x = np.float32(end_x - start_x)
        edge_y = np.float32(end_y - start_y)
        off_x = x - np.float32(start_x)
        off_y = y - np.float32(start_y)
        np.minimum(nearest, _squared_distance(off_x, off_y, edge_x, edge_y), out=nearest)
        crosses = (y >= np.float32(start_y)) != (y >= np.float32(end_y))
        inside ^= crosses & ((off_x * edge_y < off_y * edge_x) == (edge_y > 0))
    distance: Plane = np.sqrt(nearest)
    distance[inside] *= -1
    return distance


def _squared_distance(
    off_x: Floats, off_y: Floats, edge_x: Floats, edge_y: Floats, margin: float = 0.0
) -> Floats:
    """The squared distance of points from a segment; both are relative to where it starts."""
    length = edge_x**2 + edge_y**2 + margin  # above 0 for a dot, too
    along = np.clip((off_x * edge_x + off_y * edge_y) / length, 0, 1)
    return (off_x - along * edge_x) ** 2 + (off_y - along * edge_y) ** 2


def _background(random: np.random.Generator, light: Bool[np.ndarray, " n"], size_px: int) -> Canvas:
    """A color gradient with random strokes and dots."""
    count = len(light)

    def colors() -> Float32[np.ndarray, "n 3 1 1"]:
        value = np.where(light, 0.68, 0.08) + 0.3 * random.random(count)
        return hsv_to_rgb(random.random(count), 0.55 * random.random(count), value)[..., None, None]

    pixel = ((np.arange(size_px) + 0.5) / size_px).astype(np.float32)
    x = pixel
    y = pixel[:, None]
    turn = (random.random(count) * 2 * np.pi).astype(np.float32)[:, None, None]
    wash = 0.5 + (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
    near = colors()
    far = colors()
    canvas: Canvas = near + np.clip(wash, 0, 1)[:, None] * (far - near)
    for longest in CLUTTER_LENGTHS_FRACTION:
        start_x, start_y, turn, length, thickness = random.random((5, count), np.float32)[
            ..., None, None
        ]
        edge_x = length * longest * np.cos(turn * 2 * np.pi)
        edge_y = length * longest * np.sin(turn * 2 * np.pi)
        squared = _squared_distance(x - start_x, y - start_y, edge_x, edge_y, margin=1e-9)
        distance = np.sqrt(squared)
        half_width = 0.015 + 0.05 * thickness * (1.2 - longest)
        covered = np.clip(0.5 - (distance - half_width) * size_px, 0, 1)
        canvas += covered[:, None] * (colors() - canvas)
    return canvas


def hsv_to_rgb(
    hue: Numbers,
    saturation: Numbers,
    value: Numbers,
) -> Float32[np.ndarray, "n 3"]:
    """Convert hue (turns), saturation, value to RGB; Smith, "Color gamut transform pairs", 1978."""
    pure = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return np.asarray(value[:, None] * (1 + saturation[:, None] * (pure - 1)), np.float32)


def write_sample(folder: Path, seed: int = 0) -> list[str]:
    """Save JPEG files of four kinds of figures in class folders; return their paths in ``folder``.

    Two images are in the folder of another class, and one has a smaller copy.
    """
    random = np.random.default_rng(seed)
    files: list[str] = []
    for name in POSED_KINDS:
        (folder / name).mkdir(parents=True)
        for start, size_px in enumerate(SAMPLE_SIZES_PX):
            figures = choose_figures(random, SAMPLE_IMAGES, posed=True)
            numbers = range(SAMPLE_IMAGES * start + 1, SAMPLE_IMAGES * (start + 1) + 1)
            kinds = [SAMPLE_WRONG.get((name, number), name) for number in numbers]
            figures = replace(figures, kind=np.array(list(map(KINDS.index, kinds))))
            drawn = draw_figures(random, figures, size_px)
            for number, pixels in zip(numbers, drawn, strict=True):
                files.append(f"{name}/{number:02}.jpg")
                Image.fromarray(pixels).save(folder / files[-1], quality=88)
    copied = f"{POSED_KINDS[-1]}/21"
    files.append(f"{copied}-copy.jpg")
    with Image.open(folder / f"{copied}.jpg") as image:
        image.resize((180, 180)).save(folder / files[-1], quality=75)
    return files

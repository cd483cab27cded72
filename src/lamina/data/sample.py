"""A folder of sample images: things on a table, drawn with light, shadow, texture and grain.

Things are polygons in coordinates from about -1 to 1, y pointing down. Their outline, blurred, is
their relief, which the light shades.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image, ImageDraw, ImageFilter

from lamina.data.sources.drawn import hsv_to_rgb

Corners: TypeAlias = Float[np.ndarray, "_ 2"]
Color: TypeAlias = Float32[np.ndarray, "3"]
Plane: TypeAlias = Float32[np.ndarray, "_ _"]
Part: TypeAlias = tuple[Corners, Color]

CLASSES = ("apple", "leaf", "mug", "pear")
COUNT = 40
WRONG = {("leaf", 9): "mug", ("mug", 23): "apple"}
"""What an image shows that does not belong to the class of its folder."""
COPIED = ("pear", 21)
SIZES_PX = ((320, 240), (240, 320), (256, 256), (360, 270))
TEXTURE_PX = 512
SHARPER = 2  # outlines are drawn larger, and reduced


def draw_sample(seed: int = 0) -> dict[str, bytes]:
    """Draw the JPEG files of four class folders by their path; equal seeds draw equal images."""
    texture = _draw_texture(np.random.default_rng(seed))
    files: dict[str, bytes] = {}
    for label, name in enumerate(CLASSES):
        for number in range(1, COUNT + 1):
            random = np.random.default_rng((seed, label, number))
            shown = WRONG.get((name, number), name)
            files[f"{name}/{number:02}.jpg"] = _draw_photograph(random, shown, texture)
    name, number = COPIED
    files[f"{name}/{number:02}-copy.jpg"] = _save_again(files[f"{name}/{number:02}.jpg"])
    return files


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their path in a folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _draw_texture(random: np.random.Generator) -> Plane:
    """Noise whose amplitude falls with frequency, as in photographs (Field, 1987)."""
    down = np.fft.fftfreq(TEXTURE_PX)[:, None]
    across = np.fft.rfftfreq(TEXTURE_PX)
    frequency = np.hypot(down, across).clip(1 / TEXTURE_PX)
    spectrum = np.fft.rfft2(random.standard_normal((TEXTURE_PX, TEXTURE_PX)))
    plane = np.fft.irfft2(spectrum / frequency**1.2, (TEXTURE_PX, TEXTURE_PX))
    texture: Plane = (plane / plane.std()).astype(np.float32)
    return texture


def _draw_photograph(random: np.random.Generator, name: str, texture: Plane) -> bytes:
    width_px, height_px = SIZES_PX[random.integers(len(SIZES_PX))]
    side_px = min(width_px, height_px)
    radius_px = side_px * random.uniform(0.22, 0.36)
    center = (width_px, height_px) * random.uniform(0.34, 0.66, 2)
    lean = np.pi
    if name == "mug":
        lean = 0.25  # it stands
    turn = random.uniform(-lean, lean)
    parts = []
    for corners, color in DRAWINGS[name](random):
        parts.append((_turn(corners, turn) * radius_px + center, color))
    thing, outline = _paint(parts, width_px, height_px)
    table = _draw_table(random, texture, width_px, height_px)
    light = (random.uniform(-1, 1), -1.0)  # from above
    shift_px = np.round(np.multiply(light, -0.14 * radius_px)).astype(int)
    shadow = np.roll(_blur(outline, 0.13 * radius_px), shift_px[::-1], (0, 1))
    table *= 1 - random.uniform(0.4, 0.7) * shadow[..., None]
    down, across = np.gradient(_blur(outline, 0.35 * radius_px))
    lit = -0.35 * radius_px * (across * light[0] + down * light[1])
    shade = 0.85 + 0.75 * lit + 0.04 * _cut(random, texture, width_px, height_px)
    gloss = random.uniform(0, 0.5) * np.clip(1.2 * lit, 0, 1) ** 2
    thing = thing * shade[..., None] + gloss[..., None]
    scene = table + outline[..., None] * (thing - table)
    return _take(random, scene)


def _take(random: np.random.Generator, scene: Float32[np.ndarray, "h w 3"]) -> bytes:
    """Expose the scene, and save it as a camera does: with falling light, a tint and noise."""
    height_px, width_px, _ = scene.shape
    down = np.linspace(-1, 1, height_px, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width_px, dtype=np.float32)
    tilt = random.uniform(-0.18, 0.18, 2).astype(np.float32)
    falloff = 1 + tilt[0] * across + tilt[1] * down - 0.12 * (across**2 + down**2)
    tint = random.uniform(0.92, 1.08, 3) * random.uniform(0.85, 1.15)
    noise = random.standard_normal((height_px, width_px), np.float32) * random.uniform(0.01, 0.03)
    pixels = scene * (falloff[..., None] * tint.astype(np.float32)) + noise[..., None]
    image = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
    blur_px = max(0.0, random.uniform(-1.0, 1.2))
    image = image.filter(ImageFilter.GaussianBlur(blur_px))
    return _save(image, quality=int(random.integers(82, 92)))


def _draw_table(
    random: np.random.Generator, texture: Plane, width_px: int, height_px: int
) -> Float32[np.ndarray, "h w 3"]:
    """A table with a grain, and often paper, a cloth or a plate on it."""
    stretch = int(random.choice((1, 1, 4, 8)))  # for the grain of wood
    grain = _cut(random, texture, width_px, height_px, stretch)
    color = _pick(random, (0.02, 0.14), (0.1, 0.6), (0.3, 0.85))
    table = np.clip(color * (1 + 0.12 * grain[..., None]), 0, 1)
    image = Image.fromarray((table * 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(random.integers(0, 3)):
        middle = (width_px, height_px) * random.uniform(0, 1, 2)
        sides = random.uniform(0.2, 0.8, 2) * width_px
        corners = _turn(RECTANGLE * sides, random.uniform(0, np.pi)) + middle
        if random.random() < 0.4:
            corners = _draw_ellipse(middle[0], middle[1], sides[0] / 2, sides[0] / 2)
        fill = _pick(random, (0, 1), (0, 0.3), (0.3, 0.95))
        pen.polygon(_list_points(corners), fill=_to_bytes(fill))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 2)))
    return np.asarray(image, np.float32) / 255


def _paint(
    parts: Sequence[Part], width_px: int, height_px: int
) -> tuple[Float32[np.ndarray, "h w 3"], Plane]:
    """The parts in their colors, one over the other, and the share of each pixel they cover."""
    size_px = (width_px * SHARPER, height_px * SHARPER)
    colors = Image.new("RGB", size_px, _to_bytes(parts[0][1]))
    mask = Image.new("L", size_px)
    for corners, color in parts:
        points = _list_points(corners * SHARPER)
        ImageDraw.Draw(colors).polygon(points, fill=_to_bytes(color))
        ImageDraw.Draw(mask).polygon(points, fill=255)
    painted = np.asarray(colors.reduce(SHARPER), np.float32) / 255
    return painted, np.asarray(mask.reduce(SHARPER), np.float32) / 255


# Things


def _draw_apple(random: np.random.Generator) -> list[Part]:
    turn = np.linspace(-np.pi, np.pi, 60)
    top = 0.22 * np.exp(-((turn / 0.4) ** 2))
    bottom = 0.1 * np.exp(-(((np.abs(turn) - np.pi) / 0.35) ** 2))
    radius = 0.95 - top - bottom
    width = random.uniform(0.88, 1.1)
    body = np.stack([width * radius * np.sin(turn), -radius * np.cos(turn)], axis=1)
    hue = random.choice((0.0, 0.02, 0.13, 0.2))
    color = _pick(random, (hue - 0.02, hue + 0.03), (0.6, 0.85), (0.6, 0.9))
    stem = np.array([[-0.05, -0.62], [0.06, -1.15], [0.16, -1.12], [0.05, -0.6]])
    hollow = _draw_ellipse(0, -0.66, 0.26, 0.09)
    return [(body, color), (hollow, color * 0.6), (stem, BROWN)]


def _draw_leaf(random: np.random.Generator) -> list[Part]:
    along = np.linspace(0, 1, 41)
    width = random.uniform(0.4, 0.62) * np.sin(np.pi * along) ** 0.8 * (1.15 - 0.5 * along)
    width[1::2] *= random.uniform(0.88, 1.0)  # its teeth
    down = 1 - 2 * along
    right = np.stack([width, down], axis=1)
    left = np.stack([-width, down], axis=1)
    hue = random.choice((0.03, 0.1, 0.16, 0.27, 0.3))
    color = _pick(random, (hue - 0.02, hue + 0.02), (0.4, 0.7), (0.35, 0.7))
    vein = np.clip(color * 1.35, 0, 1)
    stalk = np.array([[-0.035, 1.35], [-0.02, -0.9], [0.02, -0.9], [0.035, 1.35]])
    parts = [(np.concatenate([right, left[::-1]]), color), (stalk, vein)]
    for place in range(6, 36, 5):
        for side in (-0.8, 0.8):
            start = down[place] + 0.02
            end = (side * width[place], down[place] - 0.22)
            parts.append((np.array([(0, start), end, (0, start + 0.035)]), vein))
    return parts


def _draw_mug(random: np.random.Generator) -> list[Part]:
    height = random.uniform(0.6, 0.9)
    taper = random.uniform(0.8, 1.0)
    turn = np.linspace(0, np.pi, 20)
    bottom = np.stack([0.6 * taper * np.cos(turn), height + 0.16 * np.sin(turn)], axis=1)
    body = np.concatenate([[[-0.6, -0.6], [0.6, -0.6]], bottom])
    color = _pick(random, (0, 1), (0, 0.8), (0.35, 0.95))
    side = random.choice((-1, 1))
    around = np.linspace(-0.55 * np.pi, 0.55 * np.pi, 24)
    ring = np.stack([side * np.cos(around), np.sin(around)], axis=1)
    handle = np.concatenate([ring * 0.5, ring[::-1] * 0.34])
    handle += np.array([side * 0.55, 0.1])
    parts = [(handle, color * 0.9), (body, color)]
    if random.random() < 0.4:
        band = _pick(random, (0, 1), (0.3, 0.9), (0.2, 0.9))
        parts.append((RECTANGLE * (1.16 * (1 + taper) / 2, 0.3) + (0, 0.1), band))
    drink = _pick(random, (0.04, 0.09), (0.5, 0.9), (0.15, 0.5))
    parts.append((_draw_ellipse(0, -0.6, 0.6, 0.2), np.clip(color * 1.15, 0, 1)))
    parts.append((_draw_ellipse(0, -0.57, 0.52, 0.15), drink))
    return parts


def _draw_pear(random: np.random.Generator) -> list[Part]:
    turn = np.linspace(-np.pi, np.pi, 60)
    slimness = random.uniform(0.35, 0.6)  # of its neck
    width = random.uniform(0.6, 0.72) * np.sin(turn) * (1 - slimness * np.cos(turn))
    body = np.stack([width, -0.95 * np.cos(turn)], axis=1)
    hue = random.choice((0.03, 0.11, 0.15, 0.2))
    color = _pick(random, (hue - 0.02, hue + 0.03), (0.5, 0.8), (0.6, 0.9))
    stem = np.array([[-0.04, -0.9], [0.02, -1.3], [0.1, -1.28], [0.04, -0.9]])
    bloom = _draw_ellipse(0, 0.9, 0.1, 0.04)
    return [(body, color), (bloom, color * 0.4), (stem, BROWN)]


DRAWINGS = {
    "apple": _draw_apple,
    "leaf": _draw_leaf,
    "mug": _draw_mug,
    "pear": _draw_pear,
}
RECTANGLE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
BROWN = np.array([0.25, 0.16, 0.08], np.float32)


# Pens


def _draw_ellipse(x: float, y: float, across: float, down: float) -> Corners:
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)


def _turn(corners: Corners, turn: float) -> Corners:
    sine = np.sin(turn)
    cosine = np.cos(turn)
    turned: Corners = corners @ np.array([[cosine, sine], [-sine, cosine]])
    return turned


def _pick(
    random: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> Color:
    """A random color; bounds in turns and fractions."""
    numbers = [np.array([random.uniform(*bounds)]) for bounds in (hue, saturation, value)]
    color: Color = hsv_to_rgb(*numbers)[0]
    return color


def _cut(
    random: np.random.Generator, texture: Plane, width_px: int, height_px: int, stretch: int = 1
) -> Plane:
    """A random part of the texture, stretched downwards."""
    rows = -(-height_px // stretch)
    top = random.integers(TEXTURE_PX - rows)
    left = random.integers(TEXTURE_PX - width_px)
    part = texture[top : top + rows, left : left + width_px]
    stretched: Plane = np.repeat(part, stretch, axis=0)
    return stretched[:height_px]


def _blur(plane: Plane, radius_px: float) -> Plane:
    image = Image.fromarray((plane * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius_px)), np.float32) / 255


def _list_points(corners: Corners) -> list[tuple[float, float]]:
    return [(x, y) for x, y in corners.tolist()]


def _to_bytes(color: Color) -> tuple[int, ...]:
    return tuple((color * 255).astype(int).tolist())


def _save(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _save_again(content: bytes) -> bytes:
    """The same photograph, smaller and brighter, as programs that send images make it."""
    image = Image.open(io.BytesIO(content))
    smaller = image.resize((image.width * 3 // 4, image.height * 3 // 4))
    return _save(smaller.point(lambda value: min(255, value + 8)), quality=75)

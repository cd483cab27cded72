"""The actions of the page on data."""

from __future__ import annotations

import asyncio
from typing import Any

from lamina.data.sources.published import find_download_mb
from lamina.deploy.studio.recipe_fields import write_preparation
from lamina.deploy.studio.services import Action, Actions, Side, Studio, answer


async def inspect(
    studio: Studio,
    source: str,
    size_px: Side | None = None,
    val: str = "",
    labels: bool = False,
    may_download: bool = False,
) -> dict[str, Any]:
    """Start ``lamina data``, or return the size of the download that must come first."""
    path = studio.data.check(source)
    download_mb = find_download_mb(source)
    if download_mb and not may_download:
        return {"download_mb": download_mb}
    corrected = studio.data.find_corrected(source)
    words = [path, *write_preparation(size_px, val)]
    more: dict[str, Any] = {"labels_from": corrected, "may_download": may_download}
    if labels:
        checked = {"source": source, "size_px": size_px, "val": val}
        words = ["data", "labels", *words]
        job = studio.jobs.start(words, is_training=True, checked=checked, **more)
    else:
        job = studio.jobs.start(["data", *words], **more)
    # the page must be able to undo corrections
    return job.to_json() | {"is_corrected": corrected is not None}


async def preview(studio: Studio, source: str, size_px: Side | None = None, val: str = "") -> Any:
    """The shape of a data set, and some of its images, with corrected labels."""
    data = await asyncio.to_thread(studio.data.describe, source, size_px, val)
    return await studio.compute_quickly("data_views.preview_data", *data)


async def draw_images(
    studio: Studio,
    source: str,
    images: tuple[str, ...],
    size_px: Side | None = None,
    val: str = "",
) -> Any:
    """Images by their names, with the labels of the data set."""
    arguments = (studio.data.check(source), size_px, val, images)
    return await studio.compute_quickly("data_views.draw_images", *arguments)


async def correct(
    studio: Studio, source: str, choices: dict[str, str] | None = None
) -> dict[str, str]:
    """Correct labels by image; ``None`` removes all corrections."""
    return studio.data.correct(source, choices)


async def save_image(studio: Studio, set_name: str, class_name: str, image: bytes) -> Any:
    """Save an image in a class of a set that was made in the studio."""
    folder = await asyncio.to_thread(studio.data.check_new, set_name)
    arguments = (folder, set_name, class_name, image)
    return await studio.compute_quickly("dropped_images.save_image", *arguments)


async def list_images(studio: Studio, set_name: str) -> Any:
    """The classes and images of a set made in the studio; ``DataError`` for an invalid name."""
    arguments = (await asyncio.to_thread(studio.data.check_new, set_name), set_name)
    return await studio.compute_quickly("dropped_images.list_images", *arguments)


def on_set(function: str, **kinds: type) -> Action:
    """An action about a set that was made in the studio."""
    values = {"set_name": str, **kinds}
    return answer(function, lambda studio, _: studio.data.path, values, is_quick=True)


ACTIONS: Actions = {
    "inspect": inspect,
    "preview": preview,
    "images": draw_images,
    "correct": correct,
    "save-image": save_image,
    "remove-image": on_set("dropped_images.remove_image", class_name=str, file=str),
    "rename-class": on_set("dropped_images.rename_class", class_name=str, new_name=str),
    "delete-class": on_set("dropped_images.delete_class", class_name=str),
    "set": list_images,
}

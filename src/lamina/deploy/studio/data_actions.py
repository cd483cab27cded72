"""What the page asks for about data: a class for each action, with the values that it takes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from lamina.deploy.studio.data_folder import find_download_mb
from lamina.deploy.studio.studio import Studio


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set as the page shows it: with its labels corrected there."""

    source: str
    size_px: int | None = None
    val: str = ""

    def list_arguments(self, studio: Studio) -> tuple[str, int | None, str, str]:
        """The arguments of ``data_views.load_source``."""
        file = studio.data.find_corrections(self.source)
        corrections = str(file) if file.exists() else ""
        return studio.data.check(self.source), self.size_px, self.val, corrections

    def list_options(self, studio: Studio) -> list[str]:
        """Options that load it, for a command."""
        _, size_px, val, corrections = self.list_arguments(studio)
        options = {"size": size_px, "val": val, "labels-from": corrections}
        return [f"--{name}={value}" for name, value in options.items() if value]


@dataclass(frozen=True, kw_only=True)
class Inspect(Source):
    """Start ``lamina data``, whose result is an event; or say how much has to be downloaded."""

    labels: bool = False
    may_download: bool = False

    async def act(self, studio: Studio) -> dict[str, Any]:
        source = studio.data.check(self.source)
        download_mb = find_download_mb(self.source)
        if download_mb and not self.may_download:
            return {"download_mb": download_mb}
        options = self.list_options(studio)
        # the page must be able to undo corrections
        is_corrected = studio.data.find_corrections(self.source).exists()
        if not self.labels:
            job = studio.jobs.start(["data", source, *options])
            return job.to_json() | {"is_corrected": is_corrected}
        checked = {"source": self.source, "size_px": self.size_px, "val": self.val}
        words = ["data", "labels", source, *options]
        job = studio.jobs.start(words, is_training=True, checked=checked)
        return job.to_json() | {"is_corrected": is_corrected}


@dataclass(frozen=True, kw_only=True)
class Preview(Source):
    """The shape of a data set, and some of its images."""

    async def act(self, studio: Studio) -> Any:
        arguments = await asyncio.to_thread(self.list_arguments, studio)
        return await studio.compute_quickly("data_views.preview_data", *arguments)


@dataclass(frozen=True, kw_only=True)
class DrawImages(Source):
    """Images by their names, with the labels of the data set."""

    images: tuple[str, ...]

    async def act(self, studio: Studio) -> Any:
        source = studio.data.check(self.source)
        arguments = (source, self.size_px, self.val, self.images)
        return await studio.compute_quickly("data_views.draw_images", *arguments)


@dataclass(frozen=True)
class Correct:
    """Correct labels by image; ``None`` removes all corrections."""

    source: str
    choices: dict[str, str] | None = None

    async def act(self, studio: Studio) -> dict[str, str]:
        return studio.data.correct(self.source, self.choices)


@dataclass(frozen=True)
class SaveImage:
    """Save an image in a class of a set that was made in the studio."""

    set_name: str
    class_name: str
    image: bytes

    async def act(self, studio: Studio) -> Any:
        folder = await asyncio.to_thread(studio.data.check_new, self.set_name)
        arguments = (folder, self.set_name, self.class_name, self.image)
        return await studio.compute_quickly("dropped_images.save_image", *arguments)


@dataclass(frozen=True)
class RemoveImage:
    """Remove an image from such a set."""

    set_name: str
    class_name: str
    file: str

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.data.path, self.set_name, self.class_name, self.file)
        return await studio.compute_quickly("dropped_images.remove_image", *arguments)


@dataclass(frozen=True)
class ListImages:
    """The classes and images of such a set."""

    set_name: str

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.data.path, self.set_name)
        return await studio.compute_quickly("dropped_images.list_images", *arguments)


ACTIONS = {
    "inspect": Inspect,
    "preview": Preview,
    "images": DrawImages,
    "correct": Correct,
    "save-image": SaveImage,
    "remove-image": RemoveImage,
    "set": ListImages,
}

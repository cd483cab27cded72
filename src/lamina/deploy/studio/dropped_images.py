"""Images that the page sends, from files or a webcam, saved as a folder of class folders.

They run in the threads of the studio. Only pixels are stored, so nothing else that a file
contains reaches the disk.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lamina.data.decoding import FILTER, REDUCING_GAP, BadImageError, decode_image, read_file
from lamina.data.sources.scan import is_hidden
from lamina.data.splits import find_splits
from lamina.data.thumbnails import encode_png
from lamina.deploy.studio.data_folder import MARK, DataFolder
from lamina.deploy.studio.run_views import draw_thumbnail
from lamina.errors import DataError, escape
from lamina.files import NO_NAME, write_atomically
from lamina.text import order_naturally

SHORTER_PX = 512  # at most, of a stored image
THUMBNAIL_PX = 56
NAME_LETTERS = 60
LISTED = 60  # images of a class


def save_image(folder: DataFolder, set_name: str, class_name: str, image: bytes) -> dict[str, Any]:
    """Store an encoded image's pixels as the next PNG of a class; returns what the page shows."""
    collection, place = _find_places(folder.check_new(set_name), set_name, class_name)
    try:
        picture = Image.fromarray(decode_image(image))
    except BadImageError as error:
        raise DataError(f"not saved: {error}.") from None
    if (scale := SHORTER_PX / min(picture.size)) < 1:
        size = round(scale * picture.width), round(scale * picture.height)
        picture = picture.resize(size, FILTER, reducing_gap=REDUCING_GAP)
    _check_twins(collection)
    _check_twins(place)
    try:
        collection.mkdir(exist_ok=True)
        (collection / MARK).touch()
        place.mkdir(exist_ok=True)
        numbers = _list_numbers(place)
        file = place / f"{max(numbers, default=0) + 1:04}.png"
        write_atomically(file, encode_png(picture))
    except OSError as error:
        raise DataError(
            f"Cannot write to {collection}: {error.strerror or error}. Free some space, then try"
            " again."
        ) from None
    return {
        "source": str(collection),
        "file": file.name,
        "count": len(numbers) + 1,
        "png": draw_thumbnail(np.asarray(picture), THUMBNAIL_PX),
    }


def list_images(folder: DataFolder, set_name: str) -> dict[str, Any]:
    """The classes of a set that the studio made, with their last images; none without a set."""
    collection, _ = _find_places(folder.check_new(set_name), set_name)
    _check_twins(collection)
    classes = []
    places = collection.iterdir() if collection.exists() else ()
    for place in sorted(places, key=lambda place: order_naturally(place.name)):
        if not place.is_dir() or place.is_symlink():
            continue
        numbers = sorted(_list_numbers(place))
        files = [place / f"{number:04}.png" for number in numbers[-LISTED:]]
        images = []
        for file in files:
            with suppress(BadImageError):  # reading the data set says which file is damaged
                pixels = decode_image(read_file(file))
                images.append({"file": file.name, "png": draw_thumbnail(pixels, THUMBNAIL_PX)})
        classes.append({"name": place.name, "count": len(numbers), "images": images})
    return {"source": str(collection), "classes": classes}


def remove_image(folder: DataFolder, set_name: str, class_name: str, file: str) -> int:
    """Delete an image of a set that the studio made; returns how many are left in its class."""
    place = _find_places(folder.path, set_name, class_name)[1]
    if not re.fullmatch(r"\d{4,9}\.png", file):
        raise DataError(f"{class_name} has no image {file[:100]!r}. Reload the page.")
    (place / file).unlink(missing_ok=True)
    left = len(_list_numbers(place))
    if not left:
        delete_class(folder, set_name, class_name)
    return left


def rename_class(folder: DataFolder, set_name: str, class_name: str, new_name: str) -> None:
    """Rename a class of a set that the studio made."""
    place = _find_places(folder.path, set_name, class_name)[1]
    new = _find_places(folder.path, set_name, new_name)[1]
    _check_twins(new, besides=place)
    if new != place and place.exists():
        place.rename(new)


def delete_class(folder: DataFolder, set_name: str, class_name: str) -> None:
    """Delete a class and its images in a set that the studio made; keep other files."""
    collection, place = _find_places(folder.path, set_name, class_name)
    for number in _list_numbers(place):
        (place / f"{number:04}.png").unlink(missing_ok=True)
    with suppress(OSError):
        place.rmdir()
        if [path.name for path in collection.iterdir()] == [MARK]:
            (collection / MARK).unlink()
            collection.rmdir()


def _list_numbers(place: Path) -> list[int]:
    return [int(path.stem) for path in place.glob("*.png") if re.fullmatch(r"\d{4,9}", path.stem)]


def _find_places(folder: Path, set_name: str, class_name: str | None = None) -> tuple[Path, Path]:
    """The folders of a set and of a class in it; ``DataError`` for names that are not allowed."""
    collection = folder / _check_name(set_name, "set")
    place = collection if class_name is None else collection / _check_name(class_name, "class")
    is_own = (collection / MARK).is_file() and not (collection.is_symlink() or place.is_symlink())
    if (collection.exists() and not is_own) or (place.exists() and not place.is_dir()):
        raise DataError(
            f"{collection} already exists, but the studio did not create it. Use another name."
        )
    return collection, place


def _check_twins(place: Path, besides: Path | None = None) -> None:
    """Raise ``DataError`` if a folder beside it has the same name, except for case."""
    for other in place.parent.iterdir() if place.parent.exists() else ():
        is_twin = _fold(other.name) == _fold(place.name)
        is_same = other.name == place.name and besides is None
        if is_twin and not is_same and other != besides:
            raise DataError(f"There is already {other.name}. Use another name than {place.name}.")


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _check_name(name: str, what: str) -> str:
    """The name in the Unicode form in which equal letters have equal codes."""
    name = unicodedata.normalize("NFC", name.strip())
    is_reserved = (
        is_hidden(name) or find_splits([name]) or NO_NAME.fullmatch(name) or escape(name) != name
    )
    if is_reserved or not 0 < len(name) <= NAME_LETTERS:
        raise DataError(
            f"{name[:NAME_LETTERS]!r} cannot be the name of a {what}. Use 1 to {NAME_LETTERS}"
            " letters, digits, spaces, - or _, but no reserved word, such as train or con."
        )
    return name

"""The small sets that the tests of the data are about."""

from __future__ import annotations

from support.image_sources import image_set, many_images, use_empty_cache  # noqa: F401

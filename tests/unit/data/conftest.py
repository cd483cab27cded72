"""The small sets that the tests of the data are about."""

from __future__ import annotations

from support.image_sources import batches, image_set, use_empty_cache  # noqa: F401

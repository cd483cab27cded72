"""How often a test with random examples repeats itself."""

from __future__ import annotations

import os

IS_COMPLETE = bool(os.environ.get("CI"))
"""CI runs all examples and kills; elsewhere a part of them must do."""
LOCAL_EXAMPLES = 30


def count_examples(number: int) -> int:
    """The ``max_examples`` of hypothesis: ``number`` in CI, and fewer elsewhere."""
    return number if IS_COMPLETE else min(number, LOCAL_EXAMPLES)

"""``Outputs``: a model's logits for a split, stored with its targets so that the model need not run again."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import from_numpy

from lamina.data.images import Images
from lamina.data.splits import SPLITS, Split
from lamina.errors import DataError
from lamina.files import damaged
from lamina.targets import REGRESSION, Targets, kind_of
from lamina.training.task import Regression, Task

REMEDY = "lamina resume writes it again."
FAILURES = (
    *(DataError, OSError, EOFError, zipfile.BadZipFile, zlib.error),
    *(ValueError, TypeError, SyntaxError, KeyError, AttributeError, MemoryError, RuntimeError),
)
"""How reading a damaged file fails: a header may have any syntax, or ask for any amount of memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Outputs:
    """A model's logits for the images of a split, with the images' targets and names.

    Of a regression, ``logits`` are the predicted numbers, in the units of the targets.
    """

    split: Split
    logits: Float32[np.ndarray, "n k"]
    targets: Targets
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Outputs({self.split}: {name_outputs(self.targets)} {self.logits.shape}, targets, names)"

    @staticmethod
    def collect(task: Task, logits: Float32[np.ndarray, "n k"], images: Images) -> Outputs:
        """What to store of the logits that a model gave for ``images``."""
        if isinstance(task, Regression):
            logits = task.probabilities(from_numpy(logits).double()).float().numpy()
        return Outputs(images.split, logits, images.targets, images.names)

    def raw_logits(self, task: Task) -> Float32[np.ndarray, "n k"]:
        """The logits as the task's loss takes them: of a regression, in standard deviations."""
        if isinstance(task, Regression):
            standardized: Float32[np.ndarray, "n k"] = (self.logits - np.array(task.means)) / np.array(
                task.standard_deviations
            )
            return standardized.astype(np.float32)
        return self.logits


def name_outputs(targets: np.ndarray) -> str:
    """What a model gives for such targets: logits, or the predicted numbers."""
    return "predictions" if kind_of(targets) is REGRESSION else "logits"


def pack_outputs(outputs: Sequence[Outputs]) -> bytes:
    """Answers as an ``.npz``: of each split the arrays ``test_logits``, ``test_targets`` and ``test_names``.

    Of a regression, ``test_predictions`` takes the place of ``test_logits``.
    """
    arrays: dict[str, Any] = {}
    for one in outputs:
        arrays |= {
            f"{one.split}_{name_outputs(one.targets)}": one.logits,
            f"{one.split}_targets": one.targets,
            f"{one.split}_names": np.array(one.names, np.str_),
        }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def unpack_outputs(content: bytes, what: str) -> dict[Split, Outputs]:
    """What :func:`pack_outputs` packed, by split; ``what`` names it in the ``RunError`` for damaged content."""
    if not content.startswith(b"PK"):  # of which NumPy would say how to unpickle it
        raise damaged(what, "it is no .npz file", REMEDY)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        found = {split: _read_split(arrays, split) for split in SPLITS if f"{split}_targets" in arrays}
        if len(arrays) != 3 * len(found):
            raise ValueError(f"expected logits, targets and names of {', '.join(SPLITS)}, got {', '.join(arrays)}")
    except FAILURES as error:
        # NumPy's message would say how to unpickle it.
        reason = "it holds Python objects" if str(error).startswith("Object arrays") else error
        raise damaged(what, reason, REMEDY) from error
    return found


def _read_split(arrays: Mapping[str, np.ndarray], split: Split) -> Outputs:
    targets, names = arrays[f"{split}_targets"], arrays[f"{split}_names"]
    logits = arrays[f"{split}_{name_outputs(targets)}"]
    fits = logits.dtype == np.float32 and logits.ndim == 2 and names.dtype.kind == "U" and names.ndim == 1
    if not fits or not len(logits) == len(targets) == len(names):
        found = ", ".join(f"{each.dtype} of shape {each.shape}" for each in (logits, targets, names))
        raise ValueError(f"expected logits of float32, targets and names of as many {split} images, got {found}")
    return Outputs(split, logits, targets, tuple(names.tolist()))

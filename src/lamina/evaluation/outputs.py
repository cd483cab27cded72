"""``Outputs``: a model's logits and targets for a split, stored so that commands can reuse them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from torch import from_numpy

from lamina.data.arrays import find_digests
from lamina.data.images import Images
from lamina.data.splits import SPLITS, Split
from lamina.evaluation.intervals import Groups, number_groups
from lamina.files import blaming, damaged
from lamina.targets import REGRESSION, Targets, kind_of
from lamina.training.task import Regression, Task

REMEDY = "Use lamina resume to write it again."


@dataclass(frozen=True, eq=False, repr=False)
class Outputs:
    """A model's logits for the images of a split.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        logits: the logits (N, K), before calibration; for regression, the predicted numbers in the
            targets' units.
        targets: the targets of the images.
        names: the names of the images.
        folds: the fold, from 1, whose model did not see the image in training, if the logits come
            from a cross-validation.
        groups: the group of each image; empty if images are not grouped.
        digests: a digest of each image's pixels, as in ``Images``; zeros if an image with these
            pixels is among the training images.
    """

    split: Split
    logits: Float32[np.ndarray, "n k"]
    targets: Targets
    names: tuple[str, ...]
    folds: Int64[np.ndarray, " n"] | None = None
    groups: tuple[str, ...] = ()
    digests: UInt8[np.ndarray, "n 16"] | None = None

    def __repr__(self) -> str:
        return (
            f"Outputs({self.split}: {name_outputs(self.targets)} {self.logits.shape}, targets,"
            " names)"
        )

    @staticmethod
    def collect(
        task: Task,
        logits: Float32[np.ndarray, "n k"],
        images: Images,
        train: Images | None = None,
    ) -> Outputs:
        """The logits of ``images`` (regression: numbers in target units), targets and names.

        With the images that the model was trained on, also the digests.
        """
        if isinstance(task, Regression):
            logits = task.probabilities(from_numpy(logits).double()).float().numpy()
        digests = None
        if train is not None:
            digests = images.pixel_digests.copy()
            digests[find_digests(digests, train.pixel_digests)] = 0
        return Outputs(
            images.split,
            logits,
            images.targets,
            images.names,
            groups=images.groups,
            digests=digests,
        )

    @property
    def group_numbers(self) -> Groups | None:
        """The number of each image's group; ``None`` if no two images share one."""
        return number_groups(self.groups)

    def take(self, rows: Int64[np.ndarray, " m"]) -> Outputs:
        """The outputs for some images."""
        places = rows.tolist()
        return replace(
            self,
            logits=self.logits[rows],
            targets=self.targets[rows],
            names=tuple(self.names[place] for place in places),
            folds=None if self.folds is None else self.folds[rows],
            groups=tuple(self.groups[place] for place in places if self.groups),
            digests=None if self.digests is None else self.digests[rows],
        )

    def raw_logits(self, task: Task) -> Float32[np.ndarray, "n k"]:
        """The input of the task's loss: the logits; for regression, standardized numbers."""
        if isinstance(task, Regression):
            standardized: Float32[np.ndarray, "n k"] = (
                self.logits - np.array(task.means)
            ) / np.array(task.standard_deviations)
            return standardized.astype(np.float32)
        return self.logits


def join_folds(held_out: Sequence[Outputs]) -> Outputs:
    """The outputs of all folds, one after another; folds count from 1."""
    folds = [np.full(len(fold.names), number) for number, fold in enumerate(held_out, start=1)]
    return Outputs(
        "train",
        np.concatenate([fold.logits for fold in held_out]),
        np.concatenate([fold.targets for fold in held_out]),
        tuple(name for fold in held_out for name in fold.names),
        np.concatenate(folds),
        tuple(group for fold in held_out for group in fold.groups),
    )


def name_outputs(targets: np.ndarray) -> str:
    """``predictions`` for regression targets, else ``logits``."""
    return "predictions" if kind_of(targets) is REGRESSION else "logits"


def pack_outputs(outputs: Sequence[Outputs]) -> bytes:
    """Logits as an ``.npz`` file: ``test_logits``, or ``test_predictions`` for regression."""
    arrays: dict[str, Any] = {}
    for part in outputs:
        arrays[f"{part.split}_{name_outputs(part.targets)}"] = part.logits
        arrays[f"{part.split}_targets"] = part.targets
        arrays[f"{part.split}_names"] = np.array(part.names, np.str_)
        if part.folds is not None:
            arrays[f"{part.split}_folds"] = part.folds
        if part.digests is not None:
            arrays[f"{part.split}_digests"] = part.digests
        if part.groups:
            arrays[f"{part.split}_groups"] = np.array(part.groups, np.str_)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def unpack_outputs(content: bytes, what: str) -> dict[Split, Outputs]:
    """The outputs by split; ``what`` names the file in the ``RunError`` for damaged content."""
    if not content.startswith(b"PK"):  # NumPy's message would suggest unpickling it
        raise damaged(what, "it is not an .npz file", REMEDY)
    with blaming(what, REMEDY):
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        names = ", ".join(arrays)
        outputs = {
            split: _take_split(arrays, split) for split in SPLITS if f"{split}_targets" in arrays
        }
        if arrays:  # that no split has
            expected = f"expected logits, targets and names of {', '.join(SPLITS)}"
            raise ValueError(f"{expected}, got {names}")
    return outputs


def _take_split(arrays: dict[str, np.ndarray], split: Split) -> Outputs:
    """The outputs of a split; takes their arrays out."""
    targets = arrays.pop(f"{split}_targets")
    names = arrays.pop(f"{split}_names")
    logits = arrays.pop(f"{split}_{name_outputs(targets)}")
    folds = arrays.pop(f"{split}_folds", None)
    groups = arrays.pop(f"{split}_groups", None)
    digests = arrays.pop(f"{split}_digests", None)
    fits = (
        logits.dtype == np.float32
        and logits.ndim == 2
        and logits.shape[1] > 0
        and targets.shape in (logits.shape, logits.shape[:1])
        and names.dtype.kind == "U"
        and names.shape == logits.shape[:1]
        and (folds is None or (folds.dtype == np.int64 and folds.shape == names.shape))
        and (groups is None or (groups.dtype.kind == "U" and groups.shape == names.shape))
        and (digests is None or (digests.dtype == np.uint8 and digests.shape == (len(names), 16)))
    )
    if not fits:
        stored = [f"{array.dtype} of shape {array.shape}" for array in (logits, targets, names)]
        raise ValueError(
            f"expected float32 logits, targets and names of the same number of {split} images, got"
            f" {', '.join(stored)}"
        )
    by_image = () if groups is None else tuple(groups.tolist())
    return Outputs(split, logits, targets, tuple(names.tolist()), folds, by_image, digests)

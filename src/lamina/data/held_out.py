"""Data sets made from one, with a fold held out."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
from jaxtyping import Integer

from lamina.data.groups import check_divisible
from lamina.data.images import Dataset, Images
from lamina.data.splits import deal
from lamina.errors import DataError, plural

FEW_IMAGES = 300  # fewer make a score uncertain by over 5 points


def hold_out(dataset: Dataset, fold: int, folds: int) -> Dataset:
    """Make one fold of ``train`` and ``val`` the ``test`` split, and train on all other folds.

    Folds count from 1. Fold 0 trains on all of ``train`` and ``val``, and keeps ``test``.

    Folds follow from names, targets and groups, not from pixels, so they are the same at every
    image size. Training images that are identical to an image of the fold are left out.
    """
    present = dataset.preparation.fold
    if present is not None:
        raise DataError(
            f"{dataset.name} already has fold {present} held out. Leave out --fold (in Python,"
            " fold)."
        )
    pool = _join(dataset)
    groups = pool.groups or pool.names
    if folds > (count := len(set(groups))):
        noun = "groups" if pool.groups else "images"
        raise DataError(
            f"train and val have {count:,} {noun}, fewer than {folds} folds. Use fewer folds."
        )
    check_divisible(pool.targets, pool.target_names, groups)
    strata = pool.kind.strata(pool.targets)
    seed = dataset.preparation.split_seed
    is_held = np.array(deal(strata, groups, [1 / folds] * folds, seed)) == fold - 1
    held = np.flatnonzero(is_held)
    trained = np.flatnonzero(~is_held)
    rule = "trains on train and val together"
    train = dataset.train
    test = dataset.test
    if fold:
        digests = [digest.tobytes() for digest in pool.pixel_digests]
        held_digests = {digests[place] for place in held}
        is_copy = np.array([digests[place] in held_digests for place in trained], bool)
        trained = trained[~is_copy]
        train = _take(pool, trained, dataset)
        test = replace(_take(pool, held, dataset), split="test")
        rule = f"fold {fold} of {folds} held out as test"
        if is_copy.any():
            copies = plural(int(is_copy.sum()), "copy", "copies")
            rule += f", without {copies} of its images in train"
    elif dataset.val is not None:
        train = _take(pool, trained, dataset)
    state = f"{dataset.fingerprint} {fold} {trained.tolist()}"
    return replace(
        dataset,
        fingerprint=hashlib.blake2b(state.encode(), digest_size=16).hexdigest(),
        train=train,
        val=None,
        test=test,
        split_rule=f"{rule}; {dataset.split_rule}",
        preparation=replace(dataset.preparation, fold=f"{fold}/{folds}"),
    )


def _take(pool: Images, places: Integer[np.ndarray, " m"], dataset: Dataset) -> Images:
    """Take images of the pool, in its order, with their pixels in ``train`` and ``val``."""
    pixels = np.empty((len(places), *dataset.train.pixels.shape[1:]), np.uint8)
    count = int(np.searchsorted(places, len(dataset.train)))
    # clip, because numpy buffers its output in the default mode
    np.take(dataset.train.pixels, places[:count], axis=0, out=pixels[:count], mode="clip")
    if dataset.val is not None:
        rows = places[count:] - len(dataset.train)
        np.take(dataset.val.pixels, rows, axis=0, out=pixels[count:], mode="clip")
    return replace(pool.take(places), pixels=pixels)


def advise_folds(dataset: Dataset) -> str:
    """Advice to cross-validate if scores depend on few images; otherwise empty."""
    held = dataset.test or dataset.val
    if held is None or dataset.preparation.fold or not held.kind.has_classes:
        return ""
    units = len({*held.groups} or held)  # images of a group may be alike
    if units >= FEW_IMAGES:
        return ""
    most_points = 98 / math.sqrt(units)  # half of the 95 % interval of a fraction of 50 %
    count = plural(len(held), "image", "images")
    if units < len(held):
        count += f" in {plural(units, 'group', 'groups')}"
    return (
        f"{held.split} has only {count}, so an accuracy on it is uncertain by up to"
        f" ±{most_points:.0f} points; lamina train --folds 5 evaluates on all images of train"
        " and val"
    )


def _join(dataset: Dataset) -> Images:
    """Join ``train`` and ``val`` without pixels; names in both get the name of their split."""
    parts = [dataset.train]
    if dataset.val is not None:
        parts.append(dataset.val)
    names = [name for images in parts for name in images.names]
    if len(parts) > 1 and len(set(names)) < len(names):
        names = [f"{images.split}/{name}" for images in parts for name in images.names]
    sizes = [part.original_sizes_px for part in parts if part.original_sizes_px is not None]
    return replace(
        dataset.train,
        pixels=np.empty((len(names), 0, 0, 0), np.uint8),
        targets=np.concatenate([images.targets for images in parts]),
        names=tuple(names),
        original_sizes_px=np.concatenate(sizes) if len(sizes) == len(parts) else None,
        groups=tuple(group for images in parts for group in images.groups),
        digests=np.concatenate([images.pixel_digests for images in parts]),
    )

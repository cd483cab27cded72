"""Parts of a data set: groups stay together, strata are spread, and each fold is held out once."""

from __future__ import annotations

import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from lamina import Dataset, Images, Preparation, load_data
from lamina.data.held_out import hold_out
from lamina.data.load import find_prepared, resize_dataset
from lamina.data.splits import deal
from lamina.errors import DataError


def parts_of(found: list[int], groups: list) -> dict[object, set[int]]:
    parts = defaultdict(set)
    for part, group in zip(found, groups, strict=True):
        parts[group].add(part)
    return parts


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=120),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_a_group_is_in_one_part_and_other_images_are_spread(image_set, folds, seed):
    strata, groups = [stratum for stratum, _ in image_set], [group for _, group in image_set]
    equal = [1 / folds] * folds
    found = deal(strata, groups, equal, seed)
    assert found == deal(strata, groups, equal, seed)
    assert all(len(parts) == 1 for parts in parts_of(found, groups).values())
    alone = np.array(deal(strata, range(len(strata)), equal, seed))
    for stratum in set(strata):
        sizes = np.bincount(alone[np.array(strata) == stratum], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def imbalance_of(found: np.ndarray, targets: np.ndarray, folds: int) -> float:
    """The largest distance of a class's share in a fold from 1 / folds."""
    counts = np.array(
        [np.bincount(targets[found == fold], minlength=targets.max() + 1) for fold in range(folds)]
    )
    return float(np.abs(counts / counts.sum(axis=0) - 1 / folds).max())


def test_groups_are_dealt_as_evenly_as_scikit_learn_deals_them():
    """Patients with 1 to 20 images, mostly of one class: mean imbalance over 20 sets."""
    ours, theirs = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), random.integers(1, 20, 60))
        usual = random.choice(4, 60, p=[0.5, 0.3, 0.15, 0.05])
        targets = np.where(
            random.random(len(groups)) < 0.8, usual[groups], random.integers(0, 4, len(groups))
        )
        found = np.array(deal(targets.tolist(), groups.tolist(), [0.2] * 5, seed))
        reference = np.empty(len(groups), int)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(
            groups, targets, groups
        )
        for fold, (_, held) in enumerate(folds):
            reference[held] = fold
        assert all(len(parts) == 1 for parts in parts_of(found.tolist(), groups.tolist()).values())
        ours.append(imbalance_of(found, targets, 5))
        theirs.append(imbalance_of(reference, targets, 5))
    assert np.mean(ours) <= np.mean(theirs)


def test_parts_follow_their_fractions_and_have_all_classes():
    strata = ["a"] * 100 + ["b"] * 30
    groups = [f"a{place // 5}" for place in range(100)] + [f"b{place // 10}" for place in range(30)]
    found = deal(strata, groups, [0.7, 0.2, 0.1])
    assert Counter(found[:100]) == {0: 70, 1: 20, 2: 10}
    assert Counter(found[100:]) == {0: 10, 1: 10, 2: 10}


def make_dataset(count: int = 60, copies: bool = False) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    if copies:
        pixels[1::2] = pixels[::2]
    train = Images.from_arrays(pixels, np.arange(count) // 2 % 3)
    val = Images.from_arrays(pixels[: count // 4] // 2, np.arange(count // 4) // 2 % 3, split="val")
    test = Images.from_arrays(
        pixels[: count // 4] // 3, np.arange(count // 4) // 2 % 3, split="test"
    )
    return Dataset.from_images(train, val, test)


def test_train_and_val_are_held_out_once_and_test_never():
    dataset = make_dataset()
    folds = [hold_out(dataset, fold, 4) for fold in range(1, 5)]
    held = [name for one in folds for name in one.test.names]
    assert sorted(held) == sorted(
        [f"train/{place:05d}" for place in range(60)] + [f"val/{p:05d}" for p in range(15)]
    )
    for one in folds:
        assert one.val is None
        assert set(one.train.names).isdisjoint(one.test.names)
        assert len(one.train) + len(one.test) == 75
        counts = one.test.target_counts().values()
        assert max(counts) - min(counts) <= 2
    whole = hold_out(dataset, 0, 4)
    assert (len(whole.train), whole.val, whole.test) == (75, None, dataset.test)
    assert len({dataset.fingerprint, whole.fingerprint, *(one.fingerprint for one in folds)}) == 6


def test_copies_of_held_out_images_are_left_out_and_counted():
    dataset = make_dataset(copies=True)
    for fold in range(1, 4):
        one = hold_out(dataset, fold, 3)
        seen = {image.tobytes() for image in one.test.pixels}
        assert not any(image.tobytes() in seen for image in one.train.pixels)
        left_out = 75 - len(one.train) - len(one.test)
        assert left_out > 0
        assert f"without {left_out} copies of its images" in one.split_rule


def test_a_fold_copies_the_pixels_once():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 100, 3), dtype=np.uint8)
    train = Images.from_arrays(pixels[:40], np.arange(40) % 2)
    dataset = Dataset.from_images(train, Images.from_arrays(pixels[40:], np.arange(10) % 2))
    size_bytes = dataset.train.pixels.nbytes + dataset.val.pixels.nbytes
    tracemalloc.start()
    one = hold_out(dataset, 1, 4)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert one.train.pixels.nbytes + one.test.pixels.nbytes == size_bytes
    assert peak_bytes < 1.9 * size_bytes


def test_a_fold_is_loaded_by_its_number_without_decoding_again(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for place in range(40):
        folder = tmp_path / "set" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
            folder / f"{place}.png"
        )
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    source = str(tmp_path / "set")
    whole = load_data(source, Preparation(size_px=16, split_seed=1))
    for fold in range(1, 4):
        preparation = Preparation(size_px=16, split_seed=1, fold=f"{fold}/3")
        one = load_data(source, preparation)
        assert one.fingerprint == hold_out(whole, fold, 3).fingerprint
        prepared = find_prepared(source, preparation, one.fingerprint)
        assert prepared.train.names == one.train.names
        larger = resize_dataset(one, 20)
        assert larger.train.shape == (3, 20, 20)
        assert larger.test.names == one.test.names
    assert len(list((tmp_path / "cache").glob("set-*"))) == 2  # one for each size


@pytest.mark.parametrize("fold", ["", "2", "4/3", "1/1", "-1/3", "1/3/5", "a/b"])
def test_what_is_no_fold_is_rejected(fold):
    with pytest.raises(DataError, match="expected a fold and the number of folds"):
        Preparation(fold=fold)


def test_too_few_images_for_the_folds_are_rejected():
    images = Images.from_arrays(np.zeros((5, 4, 4), np.uint8), [0, 0, 1, 1, 1])
    with pytest.raises(DataError, match="have 5 images, fewer than 6 folds"):
        hold_out(Dataset.from_images(images), 1, 6)
    rare = Images.from_arrays(
        np.arange(5, dtype=np.uint8).repeat(16).reshape(5, 4, 4), ["a", "a", "b", "a", "a"]
    )
    with pytest.raises(DataError, match="Only one image is b"):
        hold_out(Dataset.from_images(rare), 1, 2)

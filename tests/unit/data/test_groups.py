"""Images of a group, such as a patient, are never in two splits that lamina draws."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import GroupShuffleSplit

from lamina import Dataset, LaminaWarning, Preparation, load_data
from lamina.data.findings import find_group_leaks
from lamina.data.groups import describe_groups, find_groups
from lamina.data.held_out import hold_out
from lamina.data.splits import draw_splits
from lamina.errors import DataError

SIDE_PX = 8


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """30 patients with 1 to 8 images each, of two classes, and a table of them."""
    random = np.random.default_rng(0)
    rows = []
    for patient in range(30):
        for number in range(random.integers(1, 9)):
            name = ("benign", "malignant")[int(random.random() < 0.3)]
            file = tmp_path / "set" / name / f"p{patient:02d}_{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)).save(
                file
            )
            rows.append(
                {"image": f"{name}/{file.name}", "label": name, "patient": f"p{patient:02d}"}
            )
    polars.DataFrame(rows).write_csv(tmp_path / "set" / "table.csv")
    return tmp_path / "set"


def splits_of(dataset: Dataset) -> dict[str, set[str]]:
    found = defaultdict(set)
    for split, images in dataset.splits.items():
        for name, group in zip(images.names, images.groups, strict=True):
            assert group in name  # the group is the one of this image
            found[group].add(split)
    return found


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("", {"group_from": "regex:(p[0-9]+)"}),
        ("table.csv", {"group_column": "patient"}),
        ("table.csv", {"group_from": "regex:(p[0-9]+)"}),
    ],
)
def test_no_group_is_in_two_drawn_splits(patients, source, options):
    dataset = load_data(patients / source, Preparation(**options))
    found = splits_of(dataset)
    assert len(found) == 30
    assert all(len(splits) == 1 for splits in found.values())
    assert {"train", "val", "test"} == set.union(*found.values())
    total = sum(map(len, dataset.splits.values()))
    assert len(dataset.test) / total == pytest.approx(0.2, abs=0.1)
    for split, images in dataset.splits.items():
        assert images.target_counts()["malignant"] / len(images) == pytest.approx(0.3, abs=0.12), (
            split
        )
    again = load_data(patients / source, Preparation(**options))  # from the cache
    assert (again.fingerprint, again.test.groups) == (dataset.fingerprint, dataset.test.groups)
    ungrouped = load_data(patients / source)
    assert ungrouped.fingerprint != dataset.fingerprint
    assert ungrouped.test.groups == ()
    for fold in range(1, 4):
        part = hold_out(dataset, fold, 3)
        assert set(part.train.groups).isdisjoint(part.test.groups)


def test_a_patient_column_is_no_label(tmp_path):
    for place in range(20):
        Image.fromarray(np.full((4, 4), place, np.uint8)).save(tmp_path / f"{place}.png")
    table = {
        "image": [f"{p}.png" for p in range(20)],
        "sick": [p % 2 for p in range(20)],
        "patient": [*range(10)] * 2,
    }
    polars.DataFrame(table).write_csv(tmp_path / "t.csv")
    dataset = load_data(tmp_path / "t.csv", Preparation(group_column="patient", val_fraction=0))
    assert dataset.train.kind.name == "single-label"
    assert "'sick'" in dataset.target_reason


def test_rows_without_a_group_are_left_out_and_named(patients):
    table = polars.read_csv(patients / "table.csv").with_row_index()
    table = table.with_columns(
        patient=polars.when(polars.col("index") < 2).then(None).otherwise(polars.col("patient"))
    )
    table.drop("index").write_csv(patients / "gaps.csv")
    with pytest.warns(LaminaWarning, match="Left out 2 images: .*no value in column 'patient'"):
        dataset = load_data(patients / "gaps.csv", Preparation(group_column="patient"))
    assert all(len(splits) == 1 for splits in splits_of(dataset).values())


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 12)),
        min_size=1,
        max_size=80,
    ),
    st.integers(0, 9),
)
def test_groups_stay_together(rows, seed):
    names = [f"{place}.png" for place in range(len(rows))]
    strata, groups = ([row[part] for row in rows] for part in range(2))
    named = [f"g{group}" for group in groups]
    splits, _ = draw_splits(names, strata, [None] * len(rows), Preparation(split_seed=seed), named)
    frame = polars.DataFrame({"split": splits, "group": named})
    assert (frame.group_by("group").agg(polars.col("split").n_unique())["split"] == 1).all()
    if len(set(groups)) > 1:
        assert "train" in splits


def draw_patients(seed: int, patients: int, prefix: str = "p") -> list[tuple[str, int, str]]:
    """Name, class and patient of 1 to 19 images of each patient; every patient has one class."""
    random = np.random.default_rng([seed, ord(prefix)])
    classes = random.choice(3, patients, p=[0.6, 0.3, 0.1]).tolist()
    counts = random.integers(1, 20, patients).tolist()
    return [
        (f"{prefix}{patient}/{number}.png", classes[patient], f"{prefix}{patient}")
        for patient in range(patients)
        for number in range(counts[patient])
    ]


def split_patients(rows: list[tuple[str, int, str]], seed: int) -> list[str]:
    names, classes, patients = (list(column) for column in zip(*rows, strict=True))
    preparation = Preparation(test_fraction=0.2, val_fraction=0.1, split_seed=seed)
    return draw_splits(names, classes, [None] * len(names), preparation, patients)[0]


@pytest.mark.parametrize(("patients", "most_moved"), [(20, 0.08), (100, 0.04), (1000, 0.005)])
def test_images_of_test_stay_there_when_groups_are_added(patients, most_moved):
    moved = []
    for seed in range(10):
        rows = draw_patients(seed, patients)
        added = draw_patients(seed, patients // 10, prefix="q")
        before = split_patients(rows, seed)
        after = split_patients([*added, *rows], seed)[len(added) :]
        tested = [after[row] for row, split in enumerate(before) if split == "test"]
        moved.append(np.mean([split != "test" for split in tested]))
    assert np.mean(moved) <= most_moved


@pytest.mark.parametrize("patients", [20, 100])
def test_a_new_image_of_a_group_moves_no_other(patients):
    for seed in range(10):
        rows = draw_patients(seed, patients)
        more = [(f"{group}/new.png", target, group) for _, target, group in rows[::9]]
        assert split_patients(rows + more, seed)[: len(rows)] == split_patients(rows, seed)


def test_each_class_has_about_its_share_of_the_groups_in_test_and_val():
    for seed in range(10):
        rows = draw_patients(seed, 200)
        groups = {
            group: (target, split)
            for (_, target, group), split in zip(rows, split_patients(rows, seed), strict=True)
        }
        for target in range(3):
            splits = [split for label, split in groups.values() if label == target]
            for split, fraction in (("test", 0.2), ("val", 0.1)):
                share = fraction * len(splits)
                assert round(0.75 * share) <= splits.count(split) <= np.ceil(1.25 * share)


def test_the_test_split_is_stratified_better_than_without_classes():
    """Mean distance of class shares from 20 %, for 30 sets of 50 groups of one class each."""
    ours, theirs = [], []
    for seed in range(30):
        rows = draw_patients(seed, 50)
        targets = np.array([target for _, target, _ in rows])
        groups = [group for _, _, group in rows]
        held = np.array(split_patients(rows, seed)) == "test"
        shuffled = GroupShuffleSplit(1, test_size=0.2, random_state=seed)
        _, reference = next(shuffled.split(targets, targets, groups))
        totals = np.bincount(targets, minlength=3)
        for places, distances in ((np.flatnonzero(held), ours), (reference, theirs)):
            shares = np.bincount(targets[places], minlength=3) / totals
            distances.append(np.abs(shares - 0.2).mean())
    assert np.mean(ours) < np.mean(theirs)


@pytest.mark.parametrize(
    ("rule", "name", "group"),
    [
        ("parent", "cat/p1/a.png", "p1"),
        ("parent", "train/cat/a.png", "cat"),
        ("regex:(p[0-9]+)", "cat/p12_3.png", "p12"),
        ("regex:^[^/]+/(?:x|y)([0-9])", "cat/y7.png", "7"),
    ],
)
def test_a_rule_finds_the_group_in_a_name(rule, name, group):
    assert find_groups([name], Preparation(group_from=rule).group_from) == [group]


@pytest.mark.parametrize(
    ("rule", "names", "message"),
    [
        (
            "parent",
            ["cat/a.png", "b.png", "c.png"],
            r"b.png is in no folder, and 1 other\. Change the rule",
        ),
        ("parent", ["b.png", "c.png", "d.png"], r"b.png is in no folder, and 2 others\. Change"),
        ("regex:(p[0-9])", ["p1.png", "q1.png"], r"q1.png does not match\. Change"),
        ("regex:(x)?p", ["p1.png"], "p1.png does not match"),
    ],
)
def test_a_name_that_a_rule_does_not_fit_is_an_error(rule, names, message):
    with pytest.raises(DataError, match=message):
        find_groups(names, rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("folder", "expected parent, a .csv file, or regex:PATTERN"),
        ("regex:p[0-9]", "the group in parentheses"),
        ("regex:(p", "is invalid: missing"),
    ],
)
def test_what_is_no_rule_is_rejected(rule, message):
    with pytest.raises(DataError, match=message):
        Preparation(group_from=rule)
    with pytest.raises(DataError, match="both define the groups"):
        Preparation(group_from="parent", group_column="patient")


def test_groups_come_from_a_file_too_and_the_cache_follows_it(patients):
    names = [name for images in load_data(patients).splits.values() for name in images.names]
    file = patients.parent / "groups.csv"
    polars.DataFrame(
        {"image": names, "group": [f"g{place % 7}" for place in range(len(names))]}
    ).write_csv(file)
    first = load_data(patients, Preparation(group_from=str(file)))
    assert len({*first.train.groups, *first.val.groups, *first.test.groups}) == 7
    polars.DataFrame({"image": names[:2], "group": ["a", "a"]}).write_csv(file)
    second = load_data(patients, Preparation(group_from=str(file)))
    assert len({*second.train.groups, *second.val.groups, *second.test.groups}) == len(names) - 1
    file.write_text("image,group\nnope.png,a\n")
    with pytest.raises(
        DataError, match=r"names 1 image that is not in the data set; the first is nope\.png"
    ):
        load_data(patients, Preparation(group_from=str(file)))
    file.write_text("name,group\nnope.png,a\n")
    with pytest.raises(
        DataError,
        match=r"groups\.csv has the columns name, group; it must have image and group\. Cor",
    ):
        load_data(patients, Preparation(group_from=str(file)))
    file.write_text("image,group\nbenign/p00_0.png,\n")
    with pytest.raises(DataError, match=r"groups\.csv must have an image and a group in each row"):
        load_data(patients, Preparation(group_from=str(file)))


def test_groups_that_cannot_be_split_are_refused_with_what_to_do(patients):
    with pytest.raises(
        DataError, match=r"images of benign are in one group, benign, so benign cannot be in both"
    ):
        load_data(patients, Preparation(group_from="parent"))
    with pytest.raises(
        DataError, match=r"in one group, p, so they cannot be split\. Change --group-from"
    ):
        load_data(patients, Preparation(group_from="regex:(p)[0-9]"))
    names = [name for images in load_data(patients).splits.values() for name in images.names]
    halves = polars.DataFrame(
        {"image": names, "group": [f"g{place % 2}" for place in range(len(names))]}
    )
    halves.write_csv(patients.parent / "halves.csv")
    with pytest.raises(DataError, match="too few for a val split with 2 groups"):
        load_data(
            patients, Preparation(group_from=str(patients.parent / "halves.csv"), val_fraction=0.1)
        )
    whole = load_data(
        patients, Preparation(group_from="parent", val_fraction=0.0, test_fraction=0.0)
    )
    assert set(whole.train.groups) == {"benign", "malignant"}


def test_groups_in_two_given_splits_are_reported_and_counted(patients):
    for split, count in (("train", 25), ("test", 10)):
        for place in range(count):
            file = patients.parent / "given" / split / "ab"[place % 2] / f"p{place}_{split}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([count, place]).integers(
                0, 256, (8, 8, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(file)
    preparation = Preparation(group_from="regex:/(p[0-9]+)_", val_fraction=0.0)
    with pytest.warns(LaminaWarning, match=r"10 groups are in both test and train: p0, p1"):
        dataset = load_data(patients.parent / "given", preparation)
    (found,) = find_group_leaks(dataset)
    assert (found.kind, found.severity, found.count) == ("group-leak", "error", 10)
    assert "10 of the 10 images of test" in found.message


@pytest.mark.parametrize(
    ("groups", "description"),
    [
        ("abc", "each of the 3 images has its own group, so grouping has no effect"),
        ("abcb", "3 groups of 4 images; the largest is b with 2"),
        ("cc", "1 group of 2 images; the largest is c with 2"),
    ],
)
def test_groups_are_counted_unless_each_has_one_image(groups, description):
    assert describe_groups(list(groups)) == description


def write_patients(root: Path, patients: int, images: int) -> Path:
    """A folder for each patient, whose first image is black, in two classes."""
    random = np.random.default_rng(0)
    for patient in range(patients):
        folder = root / ("ill" if patient % 2 else "well") / f"p{patient}"
        folder.mkdir(parents=True)
        for number in range(images):
            pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels * (number > 0)).save(folder / f"{number}.png")
    return root


def test_a_black_image_of_each_patient_stays_only_in_test(tmp_path):
    root = write_patients(tmp_path / "set", patients=40, images=5)
    with pytest.warns(LaminaWarning, match=r"Left out 32 images: .*identical to a held-out image"):
        dataset = load_data(root, Preparation(group_from="parent", size_px=4))
    counts = [len(images) for images in dataset.splits.values()]
    assert counts == [108, 20, 40]
    assert all(len(splits) == 1 for splits in splits_of(dataset).values())
    assert not dataset.leaks


def test_a_drawn_split_without_images_is_an_error(tmp_path):
    random = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / ("a" if number % 2 else "b")
        folder.mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    held = load_data(tmp_path).test
    assert held is not None
    for name in held.names:
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match="lamina drew 2 images as test, and all of them were left"):
        load_data(tmp_path)

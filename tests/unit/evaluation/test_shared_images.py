"""Two runs that were tested on different images are compared on those that they share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lamina.errors import DataError
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import measure_effect, score_images
from lamina.evaluation.shared_images import (
    Evaluated,
    Rest,
    Sharing,
    are_alike,
    share_images,
)
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

CLASSES = SingleLabel(("cat", "dog", "owl"), (0.3, 0.3, 0.4))


def digest(numbers: np.ndarray) -> np.ndarray:
    """A digest for each number of an image."""
    words = np.asarray(numbers, "<u8")[:, None] + 1  # zeros mark images of train
    return np.repeat(words.view(np.uint8), 2, axis=1)


def evaluate(
    name: str,
    images: np.ndarray,
    targets: np.ndarray,
    *,
    task: Task = CLASSES,
    seed: int = 0,
    **changed,
) -> Evaluated:
    """A run that was tested on the images with these numbers; its logits are random."""
    logits = np.random.default_rng(seed).normal(size=(len(images), task.outputs))
    digests = digest(images)
    digests[changed.pop("seen", [])] = 0
    outputs = Outputs(
        "test",
        logits.astype(np.float32),
        targets,
        changed.pop("names", tuple(f"{name}/{number}" for number in images)),
        digests=digests,
    )
    values = {"source": f"/data/{name}", "resizing": ((3, 32, 32), "crop"), "created": name}
    return Evaluated(name=name, task=task, outputs=outputs, **values | changed)


def list_pairs(shared: list[Evaluated]) -> list[tuple[str, str]]:
    """The names of the images of both runs."""
    first, second = (part.outputs.names for part in shared)
    return sorted(zip(first, second, strict=True))


def test_grown_and_corrected_data_are_compared_on_the_shared_images_by_the_newer_labels():
    old_images, new_images = np.arange(36), np.arange(40)[::-1] + 1  # 35 are in both
    old_targets = old_images % 3
    new_targets = new_images % 3
    is_corrected = np.isin(new_images, (3, 4, 5))
    new_targets[is_corrected] = (new_targets[is_corrected] + 1) % 3
    pair = [evaluate("1", old_images, old_targets), evaluate("2", new_images, new_targets, seed=1)]
    aligned = share_images(pair)
    shared, rests, classes = aligned.runs, aligned.rests, aligned.classes
    assert list_pairs(shared) == sorted((f"1/{number}", f"2/{number}") for number in range(1, 36))
    assert [(rest.corrected, rest.images) for rest in rests] == [(3, 1), (0, 5)]
    assert classes == ()
    old, new = shared
    truth = {number: number % 3 for number in range(36)} | {3: 1, 4: 2, 5: 0}
    for run, original in ((old, pair[0]), (new, pair[1])):
        rows = {name: row for row, name in enumerate(original.outputs.names)}
        expected = [
            original.outputs.logits[rows[name]].argmax() == truth[int(name[2:])]
            for name in run.outputs.names
        ]
        assert score_images(run.task, run.outputs).tolist() == expected
    alone = [number > 35 for number in new_images]
    chosen = pair[1].outputs.logits[alone].argmax(axis=1)
    assert rests[1].score == pytest.approx((chosen == new_targets[alone]).mean())
    lines = Sharing(*rests, classes).lines("accuracy")
    assert lines[1].startswith("A has 3 labels that were corrected in newer data; ")
    assert lines[2].startswith("A has 1 other image: accuracy ")
    assert lines[3] == f"B has 5 other images: accuracy {100 * rests[1].score:.2f} %"


def test_the_targets_of_the_newest_run_count_in_either_order():
    images = np.arange(12)
    first = evaluate("1", images, images % 3, created="2026-02-01")
    second = evaluate("2", images, (images + 1) % 3, created="2026-01-01")
    for pair in ([first, second], [second, first]):
        for run in share_images(pair).runs:
            assert sorted(run.outputs.targets.tolist()) == sorted((images % 3).tolist())
            numbers = [int(name[2:]) for name in run.outputs.names]
            assert run.outputs.targets.tolist() == [number % 3 for number in numbers]


def test_images_that_a_run_was_trained_on_are_left_out():
    images = np.arange(20)
    pair = [
        evaluate("1", images, images % 3, seen=[4]),
        evaluate("2", images, images % 3, seen=[7]),
    ]
    names = {name for name, _ in list_pairs(share_images(pair).runs)}
    assert names == {f"1/{number}" for number in range(20)} - {"1/4", "1/7"}


@pytest.mark.parametrize("resizing", [((3, 32, 32), "crop"), ((3, 64, 64), "crop")])
def test_runs_are_not_alike_if_one_was_trained_on_images_that_the_other_was_tested_on(resizing):
    images = np.arange(20)
    names = tuple(f"{number}.png" for number in images)
    first = evaluate("1", images, images % 3, names=names)
    assert are_alike([first, evaluate("2", images, images % 3, names=names, resizing=resizing)])
    trained = evaluate("2", images, images % 3, names=names, resizing=resizing, seen=[3, 4])
    assert not are_alike([first, trained])


def test_runs_whose_images_have_the_same_names_are_not_alike_if_their_pixels_differ():
    images = np.arange(20)
    names = tuple(f"{number}.png" for number in images)
    pair = [evaluate(name, images + 20 * int(name), images % 3, names=names) for name in "12"]
    assert not are_alike(pair)


def test_fewer_than_ten_shared_images_are_refused_with_the_numbers():
    pair = [
        evaluate("1", np.arange(36), np.arange(36) % 3),
        evaluate("2", np.arange(27, 67), np.arange(40) % 3),
    ]
    expected = r"tested on \(1 on 36, 2 on 40\), 9 are in all of them .* at least 10 images"
    with pytest.raises(DataError, match=expected):
        share_images(pair)


def test_images_of_one_source_that_were_resized_differently_are_found_by_name():
    names = tuple(f"cat/{number}.png" for number in range(20))
    source = {"source": "/photos", "names": names}
    first = evaluate("1", np.arange(20), np.arange(20) % 3, **source)
    large = {**source, "resizing": ((3, 64, 64), "crop")}
    second = evaluate("2", np.arange(20) + 100, np.arange(20) % 3, **large)
    assert list_pairs(share_images([first, second]).runs) == sorted(zip(names, names, strict=True))
    elsewhere = replace(second, source="/other")
    reason = "resized their images differently, .* loaded theirs from /photos, /other. Compare"
    with pytest.raises(DataError, match=reason):
        share_images([first, elsewhere])


def test_runs_without_digests_share_only_images_of_one_source():
    names = tuple(f"{number:05d}" for number in range(20))
    run = evaluate("1", np.arange(20), np.arange(20) % 3, source="/photos", names=names)
    old = replace(run, outputs=replace(run.outputs, digests=None), created="0")
    first, _ = share_images([old, run]).runs
    assert first.outputs.names == names
    arrays = [replace(part, source="") for part in (old, run)]
    reason = "1 stored no digests of the images, so .* loaded theirs from arrays, arrays. Compare"
    with pytest.raises(DataError, match=reason):
        share_images(arrays)


def test_identical_images_with_two_labels_are_left_out_and_named():
    images = np.arange(20)
    first = evaluate("1", images, images % 3)
    twice = np.array([*images, 3, 5, 6])  # 5 with its own label again
    targets = np.array([*images % 3, 1, 2, 2])
    second = evaluate("2", twice, targets, names=tuple(f"{row}.png" for row in range(23)))
    aligned = share_images([first, second])
    left = set(images.tolist()) - {3, 6}
    assert {name for name, _ in list_pairs(aligned.runs)} == {f"1/{number}" for number in left}
    assert aligned.conflicts == ("3.png", "6.png", "20.png", "22.png")
    lines = Sharing(*aligned.rests, aligned.classes, aligned.conflicts).lines("accuracy")
    assert lines[1:] == [
        "without 4 images that are identical to others with another label: 3.png, 6.png, 20.png,"
        " 22.png"
    ]


def test_runs_with_different_classes_are_compared_on_those_that_both_know():
    more = SingleLabel(("bee", "cat", "owl", "dog"), (0.1, 0.2, 0.3, 0.4))
    images = np.arange(40)
    old = evaluate("1", images, images % 3)
    targets = np.array([1, 3, 2])[images % 3]
    targets[:8] = 0  # they are bees now
    new = evaluate("2", images, targets, task=more, seed=1)
    aligned = share_images([old, new])
    shared, rests, classes = aligned.runs, aligned.rests, aligned.classes
    assert classes == ("cat", "owl", "dog") and rests == (Rest(0, 0, None),) * 2
    lines = Sharing(*rests, classes).lines("accuracy")
    assert "only the classes that all runs know: cat, owl, dog" in lines
    for run, original, columns in zip(shared, (old, new), ([0, 2, 1], [1, 2, 3]), strict=True):
        assert [int(name[2:]) for name in run.outputs.names] == list(range(8, 40))
        chosen = original.outputs.logits[8:][:, columns].argmax(axis=1)
        expected = chosen == np.array([0, 2, 1])[images[8:] % 3]
        assert score_images(run.task, run.outputs).tolist() == expected.tolist()
    stranger = evaluate("3", images, images % 2, task=SingleLabel(("ant", "cat"), (0.5, 0.5)))
    with pytest.raises(DataError, match="3 has ant, cat"):
        share_images([old, stranger])


def test_labels_that_both_know_and_other_questions():
    generator = np.random.default_rng(0)
    images = np.arange(30)
    task = MultiLabel(("sea", "sky"), (0.5, 0.5), (1.0, 2.0), (0.4, 0.6))
    old = evaluate("1", images, generator.random((30, 2)) < 0.5, task=task)
    more = MultiLabel(("sky", "sun"), (0.5, 0.5))
    new = evaluate("2", images, generator.random((30, 2)) < 0.5, task=more)
    first, second = share_images([old, new]).runs
    assert first.task == MultiLabel(("sky",), (0.5,), (2.0,), (0.6,))
    assert first.outputs.logits.tolist() == old.outputs.logits[:, 1:].tolist()
    for run in (first, second):
        assert run.outputs.targets.tolist() == new.outputs.targets[:, :1].tolist()
    question = evaluate("1", images, images % 2 == 0, task=Binary(("is it a cat?",), (0.5,)))
    other = evaluate("2", images, images % 2 == 0, task=Binary(("is it a dog?",), (0.5,)))
    with pytest.raises(DataError, match="different binary targets"):
        share_images([question, other])


@pytest.mark.nightly  # 600 repetitions, which change only with the formula
def test_equal_nets_on_corrected_and_grown_data_seldom_differ():
    """10 % of the labels are corrected, and a third of the images are new."""
    generator = np.random.default_rng(0)
    claims = 0
    for _ in range(600):
        images = np.arange(300)
        truth = generator.integers(0, 3, 300)
        wrong = np.where(generator.random(300) < 0.1, (truth + 1) % 3, truth)
        pair = [
            evaluate("1", images[:200], wrong[:200]),
            evaluate("2", images[50:], truth[50:]),
        ]
        ease = generator.normal(1.0, 1.5, 300)
        for run, numbers in zip(pair, (images[:200], images[50:]), strict=True):
            noise = generator.normal(size=(len(numbers), 3))
            run.outputs.logits[:] = noise
            run.outputs.logits[np.arange(len(numbers)), truth[numbers]] += ease[numbers]
        first, second = share_images(pair).runs
        differences = score_images(first.task, first.outputs)
        differences -= score_images(second.task, second.outputs)
        claims += measure_effect(differences[None]).judge(0.005) in ("better", "worse")
    assert claims <= 44  # 33 are 5.5 %; the 97.5 % quantile of a binomial distribution

"""Images are added, labels are corrected, the net is trained again: is it better now?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina import load_run
from support.commands import events, run_refused, run_well

OPTIONS = ("--data", "bands", "--size", "12", "--epochs", "6", "--device", "cpu", "--seed", "1")


def draw_bands(folder: Path, first: int, last: int) -> None:
    """Noise with a band at the top, in the middle or at the bottom; the class names its place."""
    for number in range(first, last):
        random = np.random.default_rng(number)
        place = number % 3
        pixels = random.normal(128, 60, (12, 12, 3))
        pixels[4 * place : 4 * place + 4] += 60
        target = folder / ("top", "middle", "bottom")[place]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target / f"{number:03d}.png")


def list_bands(name: str) -> list[str]:
    return sorted(f"{name}/{file.name}" for file in Path("bands", name).glob("*.png"))


@pytest.fixture
def grown(workplace):
    """Two runs: on 240 images, and on 300 with three corrected labels of test images."""
    draw_bands(Path("bands"), 0, 240)
    run_well("train", "mlp", *OPTIONS, "--name", "first")
    draw_bands(Path("bands"), 240, 300)
    tested = load_run("runs/first").outputs["test"].names
    tops = [name for name in tested if name.startswith("top/")][:3]
    lines = ["image,correct", *(f"{name},middle" for name in tops)]
    Path("corrected.csv").write_text("\n".join(lines) + "\n")
    run_well("train", "mlp", *OPTIONS, "--name", "second", "--labels-from", "corrected.csv")
    return tops


def test_runs_before_and_after_are_compared_on_the_images_that_both_have(grown):
    old, new = (load_run(f"runs/{name}").outputs["test"] for name in ("first", "second"))
    shared = [name for name in old.names if name in new.names]
    assert len(new.names) > len(old.names) and len(shared) >= 40
    (comparison,) = events(run_well("compare", "second", "first", "--json").stdout)
    targets = dict(zip(new.names, new.targets.tolist(), strict=True))
    hits = {}
    for key, outputs in (("a", new), ("b", old)):
        chosen = dict(zip(outputs.names, outputs.logits.argmax(axis=1).tolist(), strict=True))
        hits[key] = np.mean([chosen[name] == targets[name] for name in shared])
    assert comparison["images"] == len(shared)
    assert comparison["a_score"] == pytest.approx(hits["a"])
    assert comparison["b_score"] == pytest.approx(hits["b"])
    sharing = comparison["sharing"]
    others = [len(outputs.names) - len(shared) for outputs in (new, old)]
    assert [sharing["a"]["images"], sharing["b"]["images"]] == others
    assert [sharing["a"]["corrected"], sharing["b"]["corrected"]] == [0, 3]
    printed = run_well("compare", "second", "first").stdout
    assert printed.splitlines()[0] == comparison["words"]
    assert "B has 3 labels that were corrected in newer data; the newer labels count" in printed
    assert f"A has {others[0]} other images: accuracy " in printed
    shown = run_well("runs", "--diff", "first", "second").stderr
    assert f"one pair of models, {len(shared)} images" in shown
    assert "A has 3 labels that were corrected" in shown and "cannot be compared" not in shown


def test_both_runs_are_scored_with_labels_from_a_table(grown):
    tested = load_run("runs/second").outputs["test"]
    shared = set(load_run("runs/first").outputs["test"].names).intersection(tested.names)
    rest = sorted(name for name in shared if name.startswith("bottom/"))[:4]
    lines = ["image,correct", *(f"{name},top" for name in rest)]
    Path("more.csv").write_text("\n".join(lines) + "\n")
    words = ("compare", "second", "first", "--labels-from", "more.csv", "--json")
    (comparison,) = events(run_well(*words).stdout)
    names = load_run("runs/second").record.task.target_names
    rows = dict(zip(tested.names, zip(tested.targets, tested.logits, strict=True), strict=True))
    hits = []
    for name in shared:
        target, logits = rows[name]
        expected = "top" if name in rest else names[target]
        hits.append(names[logits.argmax()] == expected)
    assert comparison["a_score"] == pytest.approx(np.mean(hits))
    # the labels of the newer run, corrected by the table, count for both
    assert comparison["images"] == len(shared) and comparison["sharing"]["b"]["corrected"] == 3 + 4
    trained = next(name for name in list_bands("top") if name not in tested.names)
    Path("train.csv").write_text(f"image,correct\n{trained},middle\n")
    words = ("compare", "second", "first", "--labels-from", "train.csv", "--json")
    (unchanged,) = events(run_well(*words).stdout)
    assert unchanged == events(run_well(*words[:3], "--json").stdout)[0]
    assert "Leave out --size" in run_refused(*words, "--size", "8")


def test_runs_that_share_few_images_are_refused_with_the_numbers(grown):
    draw_bands(Path("others"), 1000, 1240)
    run_well("train", "mlp", "--data", "others", *OPTIONS[2:], "--name", "third")
    refused = run_refused("compare", "first", "third")
    assert "0 are in all of them and in no training set" in refused
    shown = run_well("runs", "--diff", "first", "third").stderr
    assert "the scores of these runs cannot be compared: Of the images that the runs" in shown


def test_a_run_is_scored_with_corrected_labels_without_its_images(grown):
    words = ("evaluate", "runs/first", "--labels-from", "corrected.csv", "--data", "bands")
    assert "leave out --data" in run_refused(*words)
    Path("bands").rename("moved")
    outputs = load_run("runs/first").outputs["test"]
    kept, excluded = grown[:2], grown[2]
    rows = ["image,correct", *(f"{name},middle" for name in kept), f"{excluded},exclude"]
    rows.append("bottom/no-test-image.png,top")
    Path("labels.csv").write_text("\n".join(rows) + "\n")
    names = load_run("runs/first").record.task.target_names
    hits = []
    for name, target, logits in zip(outputs.names, outputs.targets, outputs.logits, strict=True):
        expected = "middle" if name in kept else names[target]
        if name != excluded:
            hits.append(names[logits.argmax()] == expected)
    before = load_run("runs/first").report
    done = run_well("evaluate", "runs/first", "--labels-from", "labels.csv", "--output", "all.csv")
    assert "corrections: 2 labels corrected, 1 images excluded" in done.stderr
    assert f"test accuracy {100 * np.mean(hits):.1f} %" in done.stdout
    assert f"{kept[0]},middle," in Path("all.csv").read_text()
    (event,) = events(
        run_well("evaluate", "runs/first", "--labels-from", "labels.csv", "--json").stdout
    )
    assert event["score"]["value"] == pytest.approx(np.mean(hits))
    assert (event["images"], event["corrected"], event["excluded"]) == (len(hits), 2, 1)
    report = load_run("runs/first").evaluate(labels="labels.csv")
    assert report.score.value == event["score"]["value"]
    assert load_run("runs/first").report == before  # nothing is saved
    refused = run_refused("evaluate", "runs/first", "--labels-from", "labels.csv", "--size", "8")
    assert "Unknown option --size." in refused
    refused = run_refused(
        "evaluate",
        "runs/first",
        "--labels-from",
        "labels.csv",
        "--device",
        "cpu",
        "--unknown",
        "ignore",
    )
    assert "no model runs. Leave out --unknown and --device." in refused
    refused = run_refused(
        "evaluate", "runs/first", "--labels-from", "labels.csv", "--split", "train"
    )
    assert "has no stored logits for train images, only for" in refused
    assert refused.rstrip().endswith("Use --split test.")
    Path("labels.csv").write_text("image,correct\nbottom/no-test-image.png,top\n")
    done = run_well("evaluate", "runs/first", "--labels-from", "labels.csv")
    assert "corrections: 0 labels corrected, 0 images excluded" in done.stderr
    assert "1 image is not in test: bottom/no-test-image.png" in done.stderr


def test_the_older_run_need_not_know_a_class_of_the_corrections(grown):
    source = sorted(Path("bands/middle").glob("*.png"))
    Path("bands/wide").mkdir()
    for number, file in enumerate(source):
        pixels = 255 - np.asarray(Image.open(file))
        Image.fromarray(pixels).save(Path("bands/wide") / f"{number:03d}.png")
    run_well("train", "mlp", *OPTIONS, "--name", "wide")
    names = load_run("runs/wide").outputs["test"].names
    shared = [name for name in names if name in load_run("runs/second").outputs["test"].names]
    Path("wide.csv").write_text(f"image,correct\n{shared[0]},wide\n")
    words = ("compare", "wide", "second", "--json")
    (before,) = events(run_well(*words).stdout)
    (after,) = events(run_well(*words, "--labels-from", "wide.csv").stdout)
    assert after["images"] == before["images"] - 1  # the older run does not know its class

"""The report page: self-contained, within its size limit, true to the run, no injected markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from torch import nn

from lamina.data import Dataset
from lamina.deploy.card import build_card
from lamina.deploy.facts import collect_facts
from lamina.deploy.report_images import IMAGES_BYTES, MOST_OF_CELL, Evidence, show_confusions
from lamina.deploy.report_page import build_report_page
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.runs.start import start_run
from lamina.text import escape
from lamina.training.events import Diagnosis
from lamina.training.recipe import Recipe
from lamina.training.task import task_of
from support.report_runs import (
    HOSTILE,
    NAMES,
    NET,
    Outline,
    make_dataset,
    make_hostile_images,
    train_briefly,
)

KINDS = ("single-label", "regression")
"""The two that share little; the words of the others are compared, too."""


@pytest.fixture(scope="module")
def pages(report_runs):
    """The page of a run for each kind of target."""
    return {
        kind: build_report_page(run, dataset, run.load_model())
        for kind, (run, dataset) in report_runs.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_and_asks_for_nothing_elsewhere(pages, kind):
    page = Outline(pages[kind])
    assert {"script", "link", "iframe", "object", "form", "base"}.isdisjoint(page.tags)
    assert all(source.startswith("data:image/") for source in page.find("img", "src"))
    assert all(target.startswith("#") for target in page.find("a", "href"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "url(" not in pages[kind]
    assert "@import" not in pages[kind]
    (viewport,) = [one for one in page.find("meta", "content") if "width=" in one]
    assert viewport == "width=device-width, initial-scale=1"


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_allows_the_pages_own_style_and_images_alone(pages, kind):
    (policy,) = [
        one for one in Outline(pages[kind]).find("meta", "content") if "default-src" in one
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", pages[kind], re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_text(pages, kind):
    assert "<script" not in pages[kind]
    assert HOSTILE in "".join(Outline(pages[kind]).texts)
    assert "\u202e" not in pages[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_each_link_leads_somewhere_and_each_name_is_used_once(pages, kind):
    page = Outline(pages[kind])
    names = [value for _, key, value in page.attributes if key == "id"]
    assert len(set(names)) == len(names)
    assert {target[1:] for target in page.find("a", "href")} <= set(names)


@pytest.mark.parametrize("kind", NAMES)
def test_a_page_says_what_the_report_says(report_runs, pages, kind):
    run, _ = report_runs[kind]
    text = " ".join(Outline(pages[kind]).texts)
    for line in (run.report.headline(), *run.report.details()):
        assert line in text
    for part in (
        "Training",
        "Diagnoses",
        "Units of the first layers",
        "Findings",
        "Reproducing this run",
        "abc",
    ):
        assert part in text
    assert ("Confidence threshold" in text) == (kind in ("single-label", "binary"))
    assert ("Confusions" in text) == (kind != "regression")


def test_a_cell_opens_the_images_that_were_confused(report_runs, pages):
    run, dataset = report_runs["single-label"]
    outputs = run.outputs["test"]
    chosen = outputs.logits.argmax(axis=1)
    page = pages["single-label"]
    cells = dict(re.findall(r'<div class="cell" id="(cell-\d+)">(.*?)<p><a', page, re.DOTALL))
    links = re.findall(r'<a href="#(cell-\d+)" aria-label="[^"]*">([\d,]+)</a>', page)
    assert len(links) == len(cells) > 1
    counts = np.array(run.report.confusion())
    assert 0 < counts.trace() < counts.sum()
    assert sorted(int(number) for _, number in links) == sorted(counts[counts > 0].tolist())
    expected = {
        frozenset(np.flatnonzero((outputs.targets == row) & (chosen == column)).tolist())
        for row, column in np.argwhere(counts > 0)
    }
    found = {
        frozenset(int(place) for place in re.findall(r'alt="test/[^"]*?;(\d+)\.png"', cell))
        for cell in cells.values()
    }
    whole = {rows for rows in expected if len(rows) <= MOST_OF_CELL}
    assert whole <= found
    source = re.search(
        r'src="data:image/jpeg;base64,([^"]+)" alt="[^"]*?;(\d+)\.png"', cells["cell-0"]
    )
    with Image.open(io.BytesIO(base64.b64decode(source[1]))) as image:
        difference = np.asarray(image, float) - dataset.test.pixels[int(source[2])]
    # noise is what JPEG keeps worst; of another image it is 50
    assert np.abs(difference).mean() < 30


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_without_its_data_a_page_has_no_images_and_says_so(report_runs, change):
    run, dataset = report_runs["single-label"]
    other = None if change == "gone" else dataclasses.replace(dataset, fingerprint="other")
    page = build_report_page(run, other)
    assert "This page has no images" in page
    assert "image/jpeg" not in page
    assert "cell-" not in page.replace(".cell", "")
    assert dataset.test.names[0].split("/")[0] in page  # the names of the largest losses


@pytest.mark.parametrize("splits", [(), ("val",)])
def test_runs_without_val_or_test(tmp_path, splits):
    dataset = make_dataset("single-label", *splits)
    run = train_briefly(tmp_path, dataset)
    page = Outline(build_report_page(run, dataset, run.load_model()))
    text = " ".join(page.texts)
    assert "learning curves, and statistics of each layer" in page.find("img", "alt")
    assert ("has not been evaluated" in text) == (splits == ())
    assert ("Largest losses" in text) == (splits != ())
    assert "Units of the first layers" in text


def test_a_run_that_has_not_begun(tmp_path):
    dataset = make_dataset("binary", "test")
    run = start_run(dataset, NET, Recipe(), runs_dir=tmp_path)
    text = " ".join(Outline(build_report_page(run, dataset)).texts)
    assert "No epoch has finished yet." in text
    assert "Not available, because the model could not be loaded." in text


def test_a_custom_module(tmp_path):
    dataset = make_dataset("single-label", "test")
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    run = train_briefly(tmp_path, dataset, module)
    page = build_report_page(run, dataset, dataclasses.replace(run, module=module).load_model())
    assert "A custom module, whose code lamina does not store" in page
    assert "the patches of 90 training images" in page


def test_ten_thousand_images_stay_within_the_size(report_runs):
    """Large noise is the worst for a JPEG: the images alone would have 300 MB."""
    names = tuple(f"class {number}" for number in range(20))
    small = make_hostile_images("single-label", 10_000, "test", names)
    images = dataclasses.replace(
        small, pixels=np.repeat(np.repeat(small.pixels, 6, axis=1), 6, axis=2)
    )
    task = task_of(images)
    logits = np.random.default_rng(0).normal(size=(10_000, 20)).astype(np.float32)
    report = score_logits(task, logits, images, 0.0)
    evidence = Evidence.collect(task, Outputs("test", logits, images.targets, images.names), images)
    values = show_confusions(report, evidence)
    figures = [figure for cell in values["cells"] for figure in cell.figures]
    size = sum(len(base64.b64encode(figure.jpeg)) for figure in figures)
    assert IMAGES_BYTES * 0.9 < size < IMAGES_BYTES * 1.1
    assert values["whole"] == "10,000"
    assert values["shown"] == f"{len(figures):,}"


def test_images_of_other_rows_are_not_shown(report_runs):
    run, dataset = report_runs["single-label"]
    order = np.arange(len(dataset.test))[::-1]
    assert (
        Evidence.collect(run.record.task, run.outputs["test"], dataset.test.take(order)).images
        is None
    )


def test_a_page_depends_on_the_run_alone(report_runs, pages, tmp_path):
    run, dataset = report_runs["binary"]
    moved = dataclasses.replace(run, path=shutil.copytree(run.path, tmp_path / run.path.name))
    assert build_report_page(moved, dataset, moved.load_model()) == pages["binary"]


def test_grey_images(tmp_path):
    images = make_hostile_images("single-label", 60, "train")
    grey = dataclasses.replace(images, pixels=images.pixels[..., :1])
    dataset = Dataset("grey", "abc", grey, test=dataclasses.replace(grey, split="test"))
    run = train_briefly(tmp_path, dataset)
    page = Outline(build_report_page(run, dataset, run.load_model()))
    jpegs = [source for source in page.find("img", "src") if source.startswith("data:image/jpeg")]
    with Image.open(io.BytesIO(base64.b64decode(jpegs[0].split(",")[1]))) as image:
        assert image.mode == "L"


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_and_the_card_give_the_same_facts(report_runs, kind):
    run, dataset = report_runs[kind]
    facts = collect_facts(run)
    card = re.sub(r"\\(?=[^\w\s])", "", build_card(run))
    page = " ".join(Outline(build_report_page(run, dataset)).texts)
    for fact in map(
        escape,
        (
            facts.about,
            run.report.headline(),
            *run.report.details(),
            *facts.diagnoses,
            *facts.origin.values(),
        ),
    ):
        assert fact.replace("\\", "") in card.replace("\\", "")
        assert fact in page


def test_the_page_and_the_card_say_what_went_wrong_in_training(report_runs, tmp_path):
    run, dataset = report_runs["binary"]
    copied = dataclasses.replace(run, path=shutil.copytree(run.path, tmp_path / "ill"))
    history = copied.path / "history.jsonl"
    *rows, last, end = map(json.loads, history.read_text().splitlines())
    found = Diagnosis(
        "dying-relu", last["epoch"], "1 (ReLU)", {"dead": 0.9}, "Units are dead.", "Lower the lr."
    )
    rows += [last | {"diagnoses": [dataclasses.asdict(found)]}, end]
    history.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    said = f"dying-relu (epoch {found.epoch}): Units are dead. Lower the lr."
    assert f"Diagnosis during training: {said}" in build_card(copied)
    assert said in Outline(build_report_page(copied, dataset)).texts

"""lamina report: a page, where it goes, and data that are gone or have moved."""

from __future__ import annotations

import shutil

import pytest

from support.commands import events, run_lamina, run_well


@pytest.fixture(scope="module")
def run_beside_data(tmp_path_factory, image_set):
    folder = tmp_path_factory.mktemp("report")
    data = shutil.copytree(image_set, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        net = "Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output()"
        done = run_lamina("train", net, "--data", data, "--epochs", "2", "--name", "one")
    assert done.returncode == 0, done.stderr
    return folder / "runs/one"


def test_a_page_is_written_into_the_run_or_where_it_is_told(run_beside_data, workplace):
    done = run_well("report", run_beside_data)
    file = run_beside_data / "report.html"
    page = file.read_text()
    assert done.stdout == f"report: {file} ({file.stat().st_size / 1e3:.0f} kB)\n"
    command = "lamina train 'Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output()'"
    assert f"<pre>{command.replace(chr(39), '&#39;')}" in page
    assert page.count("data:image/jpeg") >= 20
    done = run_lamina("report", run_beside_data, "here.html", "--json")
    assert events(done.stdout) == [
        {"event": "page", "file": "here.html", "bytes": len(page.encode())}
    ]
    assert (workplace / "here.html").read_text() == page


def test_a_page_of_data_that_is_gone_or_has_moved(run_beside_data, workplace):
    data = run_beside_data.parents[1] / "data"
    moved = data.rename(data.with_name("moved"))
    try:
        done = run_well("report", run_beside_data, "gone.html")
        assert (
            f"no images: {run_beside_data} was trained on {data}, which no longer exists."
            in done.stderr
        )
        assert "This page has no images" in (workplace / "gone.html").read_text()
        done = run_well("report", run_beside_data, "moved.html", "--data", moved)
        assert "image/jpeg" in (workplace / "moved.html").read_text()
        shutil.rmtree(shutil.copytree(moved, workplace / "other") / "train/dark")
        done = run_lamina("report", run_beside_data, "other.html", "--data", workplace / "other")
        assert done.returncode == 2
        assert not (workplace / "other.html").exists()
    finally:
        moved.rename(data)

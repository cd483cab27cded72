"""The notebook of the docs in a real kernel: trains, is interrupted, resumes, and uses threads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lamina import load_data

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
CARDS = (
    *("data", "summarize(net, data)", "recipe", "first.train()", "first"),
    "first.predictor().predict(data.test.pixels[:12])",
)
SAME = 'second.history["train_loss"].equals(first.history["train_loss"])'
THREADS = "[str(run.report.score) for run in runs]"


class InterruptingClient(NotebookClient):
    """Interrupts the kernel as a person does, once the cell for it has printed an epoch."""

    was_interrupted = False

    def process_message(self, msg, cell, cell_index):
        is_meant = "raises-exception" in cell.metadata.get("tags", ()) and not self.was_interrupted
        if is_meant and str(msg["content"].get("text", "")).startswith("epoch 1/"):
            self.was_interrupted = True
            os.kill(self.km.provisioner.pid, signal.SIGINT)
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the notebook's cells show, by the last line of the cell."""
    load_data("shapes")  # otherwise the notebook may wait for another worker, and say so
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        client = InterruptingClient(
            notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    assert client.was_interrupted
    return {
        cell.source.splitlines()[-1]: cell.outputs
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def html_of(outputs, line):
    return outputs[line][-1]["data"]["text/html"]


def test_each_value_shows_itself_in_html_without_script(outputs):
    for line in CARDS:
        assert '<div class="lamina">' in html_of(outputs, line)
        assert "<script" not in html_of(outputs, line)
    assert html_of(outputs, "data").count("<img ") == 60
    assert "13,130" in html_of(outputs, "summarize(net, data)")
    assert "peak learning rate" in html_of(outputs, "recipe")
    assert "confusion" in html_of(outputs, "first.train()").split("</style>")[1]
    assert html_of(outputs, CARDS[-1]).count("<img ") == 12
    assert "train_loss" in html_of(outputs, "first.history")
    assert outputs["first.plot()"][-1]["data"]["image/png"]


def test_an_interrupted_training_resumes_to_the_same_weights(outputs):
    *_, error = outputs["second.train()"]
    assert (error["output_type"], error["ename"]) == ("error", "KeyboardInterrupt")
    assert "epoch 3/3" not in str(outputs["second.train()"])
    assert (
        outputs['second.history["train_loss"].equals(first.history["train_loss"])'][-1]["data"][
            "text/plain"
        ]
        == "True"
    )


def test_threads_have_a_bar_each_and_nothing_fails(outputs):
    shown = outputs[THREADS]
    assert [one["output_type"] for one in shown].count("display_data") == 2
    assert "".join(one.get("text", "") for one in shown).count("epoch 1/1") == 2
    everything = [one for line, each in outputs.items() for one in each if line != "second.train()"]
    assert {one["output_type"] for one in everything} == {
        "display_data",
        "execute_result",
        "stream",
    }
    assert {one["name"] for one in everything if one["output_type"] == "stream"} == {"stdout"}
    assert not any("widget" in kind for one in everything for kind in one.get("data", ()))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_all_of_it_in_the_colors_of_the_page(outputs, browser, scheme):
    page = browser.new_page(color_scheme=scheme)
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    body = "".join(html_of(outputs, line) for line in CARDS)
    page.set_content(f"<style>:root {{ color-scheme: light dark }}</style><body>{body}</body>")
    widths = page.evaluate(
        "Promise.all([...document.images].map(one => one.decode().then(() => one.naturalWidth)))"
    )
    assert len(widths) == 72
    assert all(widths)
    assert [url for url in requests if not url.startswith("data:")] == complaints == []
    colors = page.evaluate(
        "[...document.querySelectorAll('td, th, p, b')].map(one => getComputedStyle(one).color)"
    )
    assert set(colors) == {"rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)"}
    page.close()

"""``lamina tune``: the search, its honesty, workers that are killed, and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina import LaminaError, tune
from lamina.data import Dataset
from support.commands import run_lamina
from support.searches import NET, few_finals, noise_with_val  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_finals")


SEARCH = ("--over", "lr=1e-4..1e-1:log", "batch_size=4,8")


def words(image_set, *more, epochs=2):
    return [
        "tune",
        f"{NET},epochs={epochs}",
        "--data",
        str(image_set),
        *SEARCH,
        "--name",
        "study",
        "--json",
        *more,
    ]


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(40)


def test_a_short_time_limit_is_refused(workplace, image_set):
    refused = run_lamina(*words(image_set, "--time", "0.01s"))
    assert refused.returncode == 2
    assert "the shortest search with its finals" in refused.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"over": "lr=0.1..0.2"}, "over"),
        ({"over": {"lr": (0.1, 0.2)}}, "the range of lr"),
        ({"over": {"lr": "0.1..0.2"}, "storage": 5}, "storage"),
        ({"over": {"lr": "0.1..0.2"}, "name": 5}, "name"),
    ],
)
def test_wrong_arguments_in_python(tmp_path, data, given, message):
    with pytest.raises(LaminaError, match=message):
        tune("mlp", data, **given, runs_dir=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("tune", NET), "There is nothing to search."),
        (("tune", NET, "--over", "lr"), "--over 'lr' is not a name with a range."),
        (("tune", NET, "--over", "=1..2"), "--over '=1..2' is not a name with a range."),
        (
            ("tune", NET, "--over", "lr=0.1..0.2", "--storage", "mysql://a:secret@b/c"),
            "not the URL of a PostgreSQL",
        ),
        (("tune", NET, "--over", "lr=0.1..0.2", "lr=0.1..0.3"), "two ranges for lr"),
        (
            ("tune", f"{NET},batch-size=4", "--over", "batch-size=4,8"),
            "batch_size is both given and searched.",
        ),
        (("tune", f"{NET},lr=0.1", "--over", "lr=0.1..0.2"), "lr is both given and searched."),
        (("tune", NET, "--over", "lr=0.1..0.2", "--trials", "1"), "a search needs at least 2"),
        (
            ("tune", NET, "--over", "lr=0.1..0.2", "--trials", "4", "--time", "1m"),
            "Use only one of them.",
        ),
        (
            ("tune", NET, "--over", "lr=0.1..0.2", "--storage", "shared.journal"),
            "storage is 'shared.journal', which is not the URL of a PostgreSQL database.",
        ),
        (("tune",), "There is no net to tune."),
    ],
)
def test_what_cannot_be_searched_is_refused(workplace, image_set, given, message):
    data = () if len(given) == 1 else ("--data", str(image_set))
    done = run_lamina(*given, *data)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_net_after_the_ranges_is_explained(workplace, image_set):
    done = run_lamina("tune", "--over", "lr=0.01..0.1", "mlp", "--data", image_set)
    assert (done.returncode, "put it before --over" in done.stderr) == (2, True), done.stderr

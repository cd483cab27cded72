"""A journal file of a tuning whose values anyone may have written: errors in words alone."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from lamina.errors import LaminaError
from lamina.studies.finals import rank_finalists
from lamina.studies.search import tabulate_trials
from lamina.studies.storage import JOURNAL, TrialLostError, load_study, open_storage
from lamina.studies.trials import list_trials, read_progress
from lamina.studies.tuning import find_end
from support.searches import finish, noise_with_val, open_again, open_search

HOSTILE = ("../../escaped", None, -1, 10**30, 1e400, [], ["net.py"], {"net": "net.py"}, True)


@pytest.fixture(scope="module")
def search_and_lines(tmp_path_factory):
    """A search, and the lines of its journal after three trials."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    over = {"lr": "0.001..0.1:log", "optimizer": "adam,sgd"}
    search, trials = open_search(folder, noise_with_val(20), over)
    for state, score in (("COMPLETE", 0.5), ("PRUNED", None)):
        trial = finish(trials.take(search.ranges))
        finish(trials.report(trial, 1, 0.25))
        finish(trials.is_worse(trial))
        finish(trials.finish(trial, state, score))
    finish(trials.take(search.ranges))
    finish(trials.store("finals", {"ranked": [0], "seeds": 2, "tests": 0}))
    return search, (folder / JOURNAL).read_text().splitlines()


def find_places(value, path=()):
    """The paths of all values in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from find_places(value[key], (*path, key))


def put(value, path, other):
    """A JSON value with another one at a path."""
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = put(value[path[0]], path[1:], other)
    return copy


def use(search, folder: Path) -> None:
    """All that workers and lists read; as far as it is possible."""
    progress = read_progress(load_study(open_storage(None, folder), folder.name))
    tabulate_trials(list_trials(progress.trials), progress.metric.name)
    trials = open_again(search, folder)
    finish(trials.recover())
    progress = finish(trials.load())
    find_end(progress, 1.0)
    for number in rank_finalists(progress):
        search.make(progress.trials[number])
    with trials.holding(finish(trials.take(search.ranges))):
        raise KeyboardInterrupt


def test_hostile_values_are_refused_in_words(search_and_lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search, lines = search_and_lines
    Path("net.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    folder = tmp_path / "study"
    folder.mkdir()
    refused = 0
    count = 0
    for place, line in enumerate(lines):
        for path in find_places(json.loads(line)):
            other = HOSTILE[count % len(HOSTILE)]
            count += 1
            changed = json.dumps(put(json.loads(line), path, other))
            content = "\n".join([*lines[:place], changed, *lines[place + 1 :]]) + "\n"
            (folder / JOURNAL).write_text(content)
            try:
                use(search, folder)
            except LaminaError:
                refused += 1
            except (KeyboardInterrupt, TrialLostError):
                pass
            except Exception as error:
                raise AssertionError(f"{path} of {line} as {other!r}") from error
    assert refused > count / 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "study"]
    assert [path.name for path in folder.iterdir()] == [JOURNAL]


@pytest.mark.parametrize("content", [b"\x00\xff", b"{", b"[]\n", b'{"op_code": 99}\n', b"null\n"])
def test_a_file_that_is_no_journal_is_refused_in_words(tmp_path, content):
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(LaminaError, match=r"damaged|no study"):
        load_study(open_storage(None, tmp_path), "study")


def test_a_link_in_the_folder_of_a_study_is_refused(tmp_path):
    (tmp_path / JOURNAL).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LaminaError, match="is a link"):
        open_storage(None, tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("run", ["../../victim", 1, -1, True, 0.0])
def test_the_run_of_a_trial_is_no_path(tmp_path, run):
    search, trials = open_search(tmp_path / "study", noise_with_val(20), {"lr": "0.1,0.2"})
    waiting = {"lr": 0.1}, dict(search.ranges), {"run": run}
    names = ("params", "distributions", "user_attrs")
    values = dict(zip(names, waiting, strict=True))
    state = optuna.trial.TrialState.WAITING
    trials.study.add_trial(optuna.trial.create_trial(state=state, **values))
    with pytest.raises(LaminaError, match="its run is"):
        finish(trials.take(search.ranges))

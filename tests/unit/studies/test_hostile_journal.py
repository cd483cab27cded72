"""A journal file of a tuning whose values anyone may have written: errors in words alone."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from lamina.errors import LaminaError
from lamina.studies.trials import JOURNAL, rank, read_state, tabulate_trials
from support.searches import noise_with_val, open_again, open_search, take

HOSTILE = ("../../escaped", None, -1, 10**30, 1e400, [], ["net.py"], {"net": "net.py"}, True)


@pytest.fixture(scope="module")
def search_and_lines(tmp_path_factory):
    """A search, and the lines of its journal after three trials."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    over = {"lr": "0.001..0.1:log", "optimizer": "adam,sgd"}
    search, trials = open_search(folder, noise_with_val(20), over)
    for state, score in (("COMPLETE", 0.5), ("PRUNED", None)):
        held = take(search, trials)
        trials.report(held, 1, 0.25)
        trials.is_worse(held)
        trials.finish(held, state, score)
    take(search, trials)
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
    """All that processes and lists read; as far as it is possible."""
    trials = open_again(search, folder)
    rows = trials.store()
    tabulate_trials(read_state(folder).trials, search.metric)
    for row in rank(rows, search.metric):
        search.make(row.values)
    held = take(search, trials)
    search.make(held.trial.params)
    with trials.holding(held):
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
            except KeyboardInterrupt:
                pass
            except Exception as error:
                raise AssertionError(f"{path} of {line} as {other!r}") from error
    assert refused > count / 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "study"]
    assert all(path.is_file() for path in folder.iterdir())
    assert {path.name for path in folder.glob("[!.]*")} == {JOURNAL, "study.json"}


@pytest.mark.parametrize("content", [b"\x00\xff", b"{", b"[]\n", b'{"op_code": 99}\n', b"null\n"])
def test_a_file_that_is_no_journal_is_refused_in_words(search_and_lines, tmp_path, content):
    (tmp_path / JOURNAL).write_bytes(content)
    with pytest.raises(LaminaError, match="The storage of the study is damaged"):
        open_again(search_and_lines[0], tmp_path)


def test_a_link_in_the_folder_of_a_study_is_refused(search_and_lines, tmp_path):
    (tmp_path / JOURNAL).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LaminaError, match="is a link"):
        open_again(search_and_lines[0], tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("value", [0.3, 10**30, "../../victim", True, None])
def test_a_value_outside_of_its_range_is_not_trained(tmp_path, value):
    search, trials = open_search(tmp_path / "study", noise_with_val(20), {"lr": "0.1,0.2"})
    wider = optuna.distributions.CategoricalDistribution([value, 0.1])
    queued = optuna.trial.create_trial(
        state=optuna.trial.TrialState.WAITING,
        params={"lr": value},
        distributions={"lr": wider},
    )
    trials.study.add_trial(queued)
    with pytest.raises(LaminaError, match="The storage of the study is damaged"):
        take(search, trials)
    with pytest.raises(LaminaError, match=r"lr is .*, which is not in its range"):
        search.make({"lr": value})

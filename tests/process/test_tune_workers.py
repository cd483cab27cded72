"""Processes of one study, killed in training: with one folder, and on a PostgreSQL that stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import optuna
import pytest

from lamina import Study, load_run
from support.commands import events, run_refused, run_well, start_process
from support.forking import Process
from support.searches import NET, QUICKLY

SEARCH = ("--over", "lr=1e-4..1e-1:log", "batch_size=2,4", "--name", "study")
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)


class PostgresServer:
    """A PostgreSQL server that the tests may stop and start.

    It listens on a socket in its folder: a port could be taken while it is stopped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, POSTGRES.parent
        self.user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self.user:
            shutil.chown(folder, self.user)
        self._run("initdb", "--auth=trust", "--username=lamina", "--no-sync", "-D", folder / "data")
        self.start()

    def create_database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self._run("createdb", "-h", self.folder, "-U", "lamina", name)
        return f"postgresql://lamina:secret@/{name}?host={self.folder}"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        log = self.folder / "log"
        self._run("pg_ctl", "-w", "-D", self.folder / "data", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-D", self.folder / "data", "-m", "immediate", "stop")

    def _run(self, name: str, *words: object) -> None:
        with (self.folder / "output").open("a") as output:
            subprocess.run(
                [str(self.bin / name), *map(str, words)],
                check=True,
                user=self.user,
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of this module; those that stop it come last."""
    if POSTGRES is None:
        if os.environ.get("LAMINA_TEST_POSTGRES"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    # pytest's folders are closed to other users
    folder = Path(tempfile.mkdtemp(prefix="lamina-postgres-"))
    started = PostgresServer(folder)
    yield started
    started.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres: PostgresServer, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    return postgres.create_database(request.node.originalname.removeprefix("test_"))


@pytest.fixture
def begin(workplace) -> Iterator[Callable[..., Process]]:
    """Starts ``lamina`` in a process, which ends with the test."""
    begun = []

    def start(*words: str | Path) -> Process:
        begun.append(start_process(*words, "--json", code=QUICKLY))
        return begun[-1]

    yield start
    for process in begun:
        with process:
            process.kill()


def await_epoch(worker: Process, least: int = 1) -> None:
    for line in worker.stdout:
        if '"event": "epoch"' in line and json.loads(line)["epoch"] >= least:
            return
    pytest.fail(worker.stderr.read())


def await_remark(worker: Process, text: str) -> None:
    for line in worker.stderr:
        if text in line:
            return
    pytest.fail(f"the worker ended without {text!r}")


def kill_in_training(worker: Process) -> None:
    """Kill a worker with SIGKILL in the middle of its first trial."""
    await_epoch(worker, 3)
    worker.kill()
    assert worker.wait() == -signal.SIGKILL


def check_each_trial_once(study: Study, folders: Iterable[Path], least: int, most: int) -> None:
    """No trial is lost, and none is trained twice."""
    rows = study.trials.to_dicts()
    assert least <= len(rows) <= most
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    values = Counter((row["lr"], row["batch_size"]) for row in rows)
    assert max(values.values()) == 1
    ended = []
    for folder in folders:
        for path in folder.glob("study/trial-*"):
            epochs = [row["epoch"] for row in load_run(path).folder.read_epochs()]
            assert epochs == list(range(1, len(epochs) + 1))
            if load_run(path).report is not None:
                ended.append(int(path.name.removeprefix("trial-")))
    complete = [row["trial"] for row in rows if row["state"] == "complete"]
    assert len(ended) == len(set(ended))
    assert set(complete) <= set(ended)


def end_well(worker: Process) -> list[dict]:
    """The events of a worker that ends well."""
    out, err = worker.communicate()
    assert worker.returncode == 0, err
    assert "secret" not in out + err
    return events(out)


def test_four_machines_share_a_search_and_one_is_killed(image_set, database, begin):
    search = (*SEARCH, "--trials", "6", "--storage", database)
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *search)
    folders = [Path(f"machine-{number}") for number in range(4)]
    killed = begin(*call, "--worker", "--runs-dir", folders[0])
    await_epoch(killed)  # so that it has a trial
    workers = [begin(*call, "--worker", "--runs-dir", folder) for folder in folders[1:]]
    kill_in_training(killed)
    for worker in workers:
        printed = end_well(worker)
        assert not any(event["event"] == "study" for event in printed)
    end_well(begin(*call, "--worker", "--runs-dir", folders[0]))  # continues the killed trial
    result = end_well(begin(*call, "--runs-dir", folders[1]))[-1]
    assert result["event"] == "study"
    # each of the other workers may have trained a last trial when the sixth ended
    check_each_trial_once(Study(folders[1] / "study"), folders, 6, 9)
    again = run_well(*call, "--runs-dir", folders[1], "--json")
    assert events(again.stdout)[-1] == result
    finals = [path for folder in folders for path in folder.glob("study/final-*")]
    assert {path.parts[0] for path in finals} == {"machine-1"}
    for folder in folders:
        shown = run_well("runs", "--study", folder / "study", "--json")
        assert 6 <= len(events(shown.stdout)) <= 9
        for file in folder.rglob("*.*"):
            assert not file.is_file() or b"secret" not in file.read_bytes(), file


def test_two_processes_share_a_folder_and_one_is_killed(image_set, begin):
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, "--trials", "3")
    killed = begin(*call, "--worker")
    await_epoch(killed)
    other = begin(*call)
    kill_in_training(killed)
    result = end_well(other)[-1]
    assert result["event"] == "study"
    check_each_trial_once(Study(Path("runs/study")), [Path("runs")], 3, 3)
    again = run_well(*call, "--json")
    assert events(again.stdout)[-1] == result


def test_two_processes_of_a_folder_train_the_finals_once(image_set, begin):
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, "--trials", "3")
    workers = [begin(*call) for _ in range(2)]
    printed = [event for worker in workers for event in end_well(worker)]
    results = [event for event in printed if event["event"] == "study"]
    assert results
    assert all(result == results[0] for result in results)
    check_each_trial_once(Study(Path("runs/study")), [Path("runs")], 3, 3)
    trained = [event["value"] for event in printed if event.get("what") == "trained"]
    assert len(trained) == len(set(trained))


@pytest.mark.parametrize("value", ["../../escaped", ["evil.py"]])
def test_hostile_trials_run_nothing(image_set, begin, value):
    """A trial whose attributes lamina has not written ends the worker with an error in words."""
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, "--trials", "3")
    worker = begin(*call)
    await_epoch(worker)
    worker.kill()
    worker.wait()
    journal = optuna.storages.journal.JournalFileBackend("runs/study/trials.journal")
    storage = optuna.storages.JournalStorage(journal)
    study = optuna.load_study(study_name="study", storage=storage)
    spans = study.trials[0].distributions
    trial = optuna.trial.create_trial(
        params={"lr": 0.01, "batch_size": 2},
        distributions=spans,
        value=0.5,
        user_attrs={"error": [value]},
    )
    study.add_trial(trial)
    before = sorted(Path().rglob("*"))
    refused = run_refused(*call)
    assert "The storage of the study is damaged" in refused
    assert sorted(Path().rglob("*")) == before


def test_a_worker_with_another_search_is_refused(image_set, database, begin):
    storage = ("--storage", database, "--runs-dir")
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, *storage)
    worker = begin(*call, "a")
    await_epoch(worker)
    message = "The study study in the storage was begun with other settings, images or code."
    longer = ("tune", f"{NET},epochs=9", *call[2:])
    assert message in run_refused(*longer, "b")
    Path("net.py").write_text("from lamina.nets import *\nnet = Net(Flatten(), Output())\n")
    other = ("tune", "net.py,epochs=8", *call[2:])
    assert message in run_refused(*other, "b")
    assert not Path("b").exists()
    wrong = run_refused(*call[:-2], f"{database}/nothing", "--runs-dir", "c")
    assert "secret" not in wrong


@pytest.mark.nightly  # four trainings; other tests continue killed trainings
def test_the_finals_of_a_killed_process_are_continued(image_set, begin):
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, "--trials", "2")
    worker = begin(*call)
    await_remark(worker, "trained: final-")
    worker.kill()
    assert end_well(begin(*call))[-1]["event"] == "study"


def test_the_server_stops_in_a_search(image_set, postgres, database, begin):
    """Without the server, the search ends; the same command continues it later."""
    search = (*SEARCH, "--trials", "2", "--storage", database, "--worker")
    call = ("tune", f"{NET},epochs=40", "--data", image_set, *search)
    worker = begin(*call)
    await_epoch(worker)
    postgres.stop()
    out, err = worker.communicate()
    assert worker.returncode == 2
    assert "The storage of the study cannot be used: " in err
    assert "secret" not in out + err
    postgres.start()
    printed = end_well(begin(*call))
    assert printed[-1]["event"] == "decision"
    check_each_trial_once(Study(Path("runs/study")), [Path("runs")], 2, 2)
    finished = [path for path in Path("runs/study").glob("trial-*") if load_run(path).report]
    run_well("reproduce", finished[0])

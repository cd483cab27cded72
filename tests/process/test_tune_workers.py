"""Workers of one study, killed at random: on a journal file, and on a PostgreSQL that restarts."""

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
from lamina.studies.storage import load_study, open_storage
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

    def drop_connections(self) -> None:
        end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        self._run("psql", "-h", self.folder, "-U", "lamina", "-c", end, "postgres")

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
def journal(workplace: Path) -> str:
    """A file where workers with folders of their own share their trials."""
    return str(workplace / "shared.journal")


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


def check_each_trial_once(study: Study, folders: Iterable[Path], least: int) -> None:
    """No trial is lost, and none is trained twice."""
    rows = study.trials.to_dicts()
    # workers that begin the last trials at once may begin one each
    assert least <= len(rows) <= least + 3
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


def test_four_workers_share_a_search_and_one_is_killed(image_set, database, begin):
    search = (*SEARCH, "--trials", "6", "--storage", database)
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *search)
    folders = [Path(f"machine-{number}") for number in range(4)]
    workers = [begin(*call, "--runs-dir", folders[0])]
    await_epoch(workers[0])  # so that it has a trial
    workers += [begin(*call, "--runs-dir", folder) for folder in folders[1:]]
    kill_in_training(workers[0])
    printed = []
    for worker in workers[1:]:
        out, err = worker.communicate()
        assert worker.returncode == 0, err
        assert "secret" not in out + err
        printed.append(events(out))
    results = [lines[-1] for lines in printed if lines and lines[-1]["event"] == "study"]
    assert results  # one of them has trained the finals
    assert all(result == results[0] for result in results)
    place = Path(results[0]["study"])
    check_each_trial_once(Study(place, database), folders, 6)
    again = run_well(*call, "--runs-dir", place.parent, "--json")
    assert events(again.stdout)[-1] == results[0]
    other = next(folder for folder in folders if folder != place.parent)
    told = run_well(*call, "--runs-dir", other, "--json")
    assert "has trained them" in told.stderr
    assert events(told.stdout)[-1] == results[0]
    shown = run_well("runs", "--study", other / "study", "--json")
    assert len(events(shown.stdout)) == results[0]["trials"]
    for folder in folders:
        for file in folder.rglob("*.*"):
            assert not file.is_file() or b"secret" not in file.read_bytes(), file


def test_two_processes_of_one_machine_share_a_folder(image_set, begin):
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, "--trials", "3")
    workers = [begin(*call) for _ in range(2)]
    results = []
    for worker in workers:
        out, err = worker.communicate()
        assert worker.returncode == 0, err
        results += [event for event in events(out) if event["event"] == "study"]
    assert results
    assert all(result == results[0] for result in results)
    check_each_trial_once(Study(Path("runs/study")), [Path("runs")], 3)


@pytest.mark.parametrize("value", ["../../escaped", ["evil.py"]])
def test_hostile_trials_run_nothing(image_set, journal, begin, value):
    """A trial whose attributes lamina has not written ends the worker with an error in words."""
    search = (*SEARCH, "--trials", "3", "--storage", journal)
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *search)
    worker = begin(*call)
    await_epoch(worker)
    worker.kill()
    study = load_study(open_storage(journal, Path()), "study")
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState.WAITING, user_attrs={"run": value}
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
    message = "The study study in the storage already exists, with different"
    longer = ("tune", f"{NET},epochs=9", *call[2:])
    assert f"{message} settings: given, epochs." in run_refused(*longer, "b")
    Path("net.py").write_text("from lamina.nets import *\nnet = Net(Flatten(), Output())\n")
    other = ("tune", "net.py,epochs=8", *call[2:])
    assert f"{message} settings: net, file." in run_refused(*other, "b")
    assert not Path("b").exists()
    wrong = run_refused(*call[:-2], f"{database}/nothing", "--runs-dir", "c")
    assert "secret" not in wrong


@pytest.mark.nightly  # four trainings; other tests continue killed trainings
def test_the_finals_of_a_killed_process_are_continued(image_set, begin):
    call = ("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, "--trials", "2")
    worker = begin(*call)
    await_remark(worker, "trained: final-")
    worker.kill()
    again = begin(*call)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert events(out)[-1]["event"] == "study"


@pytest.mark.nightly  # real pauses of seconds; only a change of storage.py could break it
def test_the_server_is_down_for_a_while(image_set, postgres, database, begin):
    search = (*SEARCH, "--trials", "4", "--storage", database)
    call = ("tune", f"{NET},epochs=18", "--data", image_set, *search)
    first = begin(*call, "--runs-dir", "a")
    await_epoch(first)
    other = begin(*call, "--runs-dir", "b")
    await_epoch(other)
    postgres.drop_connections()
    await_epoch(other)
    postgres.stop()
    first.kill()
    await_remark(other, "waiting: for the storage")
    assert other.poll() is None
    postgres.start()
    out, err = other.communicate()
    assert other.returncode == 0, err
    assert events(out)[-1]["event"] == "study"
    check_each_trial_once(Study(Path("b/study"), database), [Path("a"), Path("b")], 4)
    finished = [path for path in Path("b/study").glob("trial-*") if load_run(path).report]
    run_well("reproduce", finished[0])


def test_a_signal_ends_a_worker_while_the_database_is_down(image_set, postgres, database, begin):
    storage = ("--storage", database)
    worker = begin("tune", f"{NET},epochs=8", "--data", image_set, *SEARCH, *storage)
    await_epoch(worker)
    postgres.stop()
    await_remark(worker, "waiting: for the storage")
    worker.send_signal(signal.SIGTERM)
    worker.communicate()  # long before the ten minutes after which it gives up
    assert worker.returncode == 128 + signal.SIGTERM
    postgres.start()

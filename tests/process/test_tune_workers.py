"""Several workers of one study, killed at random: on SQLite, and on a PostgreSQL that restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina import Study, load_run
from support.commands import events, run_refused, run_well, start_process
from support.forking import Process
from support.searches import NET, QUICKLY

SEARCH = ("--over", "lr=1e-4..1e-1:log", "batch_size=2,4", "--epochs", "8", "--name", "study")
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)


class Server:
    """A PostgreSQL server with an empty database, which the tests may stop and start.

    It listens on a socket in its folder: a port could be taken while it is stopped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, POSTGRES.parent
        self.user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self.user:
            shutil.chown(folder, self.user)
        self._run("initdb", "--auth=trust", "--username=lamina", "--no-sync", "-D", folder / "data")
        self.start()
        self._run("createdb", "-h", folder, "-U", "lamina", "tunings")
        self.url = f"postgresql://lamina:secret@/tunings?host={folder}"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        log = self.folder / "log"
        self._run("pg_ctl", "-w", "-D", self.folder / "data", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-D", self.folder / "data", "-m", "immediate", "stop")

    def drop_connections(self) -> None:
        end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        self._run("psql", "-h", self.folder, "-U", "lamina", "-c", end, "tunings")

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


@pytest.fixture
def postgres() -> Iterator[Server]:
    if POSTGRES is None:
        if os.environ.get("LAMINA_TEST_POSTGRES"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    # pytest's folders are closed to other users
    folder = Path(tempfile.mkdtemp(prefix="lamina-postgres-"))
    started = Server(folder)
    yield started
    started.stop()
    shutil.rmtree(folder)


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


def check_each_trial_once(study: Study, trials: int, least: int) -> None:
    """No trial is lost, and none is trained twice."""
    rows = study.trials.to_dicts()
    # workers that begin the last trials at once may begin one each
    assert least <= len(rows) == trials <= least + 3
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    values = Counter((row["lr"], row["batch_size"]) for row in rows)
    assert max(values.values()) == 1
    for folder in study.path.glob("trial-*"):
        epochs = [row["epoch"] for row in load_run(folder).folder.history.epochs()]
        assert epochs == list(range(1, len(epochs) + 1))


def test_a_second_process_joins_on_the_same_machine(image_set, begin):
    leader = begin("tune", NET, "--data", image_set, *SEARCH, "--trials", "3")
    await_epoch(leader)
    path = Path("runs/study").resolve()
    joining = ("tune", "--join", path, "--runs-dir", "unused")
    assert "Leave out --runs-dir." in run_refused(*joining)
    other = begin("tune", "--join", path)  # with the short heartbeats of the leader
    _, messages = other.communicate()
    assert other.returncode == 0, messages
    out, err = leader.communicate()
    assert leader.returncode == 0, err
    check_each_trial_once(Study(Path("runs/study")), events(out)[-1]["trials"], 3)


def test_workers_are_killed_and_the_server_is_down_for_a_while(image_set, postgres, begin):
    search = (*SEARCH, "--epochs", "18", "--trials", "8", "--storage", postgres.url)
    call = ("tune", NET, "--data", image_set, *search)
    leader = begin(*call)
    await_epoch(leader)
    others = [begin("tune", "--join", postgres.url) for _ in range(2)]
    for place, other in enumerate(others):
        kill_in_training(other)
        others[place] = begin("tune", "--join", postgres.url)
    await_epoch(others[1])  # it has opened the database, which it does only once
    postgres.drop_connections()
    await_epoch(others[0])
    postgres.stop()
    leader.kill()
    await_remark(others[0], "waiting: for the database")
    assert others[0].poll() is None
    postgres.start()
    again = begin(*call)
    out, err = again.communicate()
    assert again.returncode == 0, err
    printed = [other.communicate() for other in others]
    assert others[0].returncode == 0, printed
    last = events(out)[-1]
    assert last["event"] == "study"
    study = Study(Path("runs/study"), postgres.url)
    check_each_trial_once(study, last["trials"], 8)
    complete = study.trials.filter(study.trials["state"] == "complete")
    best = complete.sort("score").row(-1, named=True)
    run_well("reproduce", f"runs/study/trial-{best['trial']}")
    shown = run_well("runs", "--study", f"{postgres.url}#study", "--json")
    assert [row["trial"] for row in events(shown.stdout)] == list(range(last["trials"]))
    assert "secret" not in err + shown.stderr
    for file in Path("runs").rglob("*.*"):
        assert not file.is_file() or b"secret" not in file.read_bytes(), file


def test_a_signal_ends_a_worker_while_the_database_is_down(image_set, postgres, begin):
    leader = begin("tune", NET, "--data", image_set, *SEARCH, "--storage", postgres.url)
    await_epoch(leader)
    postgres.stop()
    await_remark(leader, "waiting: for the database")
    leader.send_signal(signal.SIGTERM)
    leader.communicate()  # long before the ten minutes after which it gives up
    assert leader.returncode == 128 + signal.SIGTERM
    postgres.start()


def test_what_cannot_be_joined_is_refused(workplace, postgres):
    empty = run_refused("tune", "--join", postgres.url)
    assert "contains no study" in empty
    wrong = run_refused("tune", "--join", postgres.url.replace("tunings", "nothing"))
    assert 'database "nothing" does not exist' in wrong
    assert "secret" not in empty + wrong

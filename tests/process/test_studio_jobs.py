"""Trainings and other commands of the studio: paused, finished, killed, and in turn."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

import pytest

from lamina import load_run
from lamina.deploy.studio.events import Events
from lamina.deploy.studio.jobs import NICENESS, Jobs
from support.servers import noise_png, wait_for
from support.studios import (
    LASTING,
    SMALL,
    opening,
    wait_for_end,
    wait_for_epochs,
)


@pytest.mark.parametrize("schedule", ["cosine", "trapezoid"])
def test_finish_now_ends_with_an_evaluation(studio, schedule):
    job = studio.train("run", schedule=schedule)
    wait_for_epochs(studio, "run", 2)
    for _ in range(2):  # from two pages
        assert studio.act("stop", run="run", is_finishing=True)["is_finishing"]
    assert wait_for_end(studio, job["number"])["state"] == "done"
    run = studio.act("run", run="run")
    assert run["score"].startswith("test accuracy") and run["epochs"] < LASTING
    assert (run["is_finished"], len(run["rows"])) == (True, run["epochs"])
    again = studio.act("resume", run="run")  # evaluates
    assert wait_for_end(studio, again["number"])["state"] == "done"


def test_a_training_that_cannot_be_saved_is_not_called_paused(studio):
    with studio.listening() as events:
        job = studio.train("full", batch_size="1")
        steps = (event for event in events if event["event"] == "step" and event["epoch"] > 1)
        next(event for event in steps if event["step"] < event["steps"] // 2)
    child = studio.find_child("train")
    resource.prlimit(child, resource.RLIMIT_FSIZE, (100, 100))  # as on a full disk
    studio.act("stop", run="full")
    ended = wait_for_end(studio, job["number"])
    assert (
        ended["state"] == "failed"
        and "The last checkpoint is intact. Free disk space" in ended["problem"]
    )


def test_a_training_that_is_being_paused_is_not_interrupted(studio):
    job = studio.train("paused")
    wait_for_epochs(studio, "paused", 3)
    os.kill(child := studio.find_child("train"), signal.SIGSTOP)  # in a slow step
    studio.act("stop", run="paused")
    assert not studio.act("stop", run="paused", is_finishing=True)["is_finishing"]
    os.kill(child, signal.SIGCONT)
    assert wait_for_end(studio, job["number"])["state"] == "stopped"
    run = load_run(studio.folder / "runs" / "paused")
    standing = run.folder.read_checkpoint().standing  # no step is lost
    assert standing.steps_done >= len(run.history) * standing.steps_per_epoch


def test_a_training_that_is_killed_while_it_finishes_has_failed(studio):
    job = studio.train("killed")
    wait_for_epochs(studio, "killed", 5)
    os.kill(child := studio.find_child("train"), signal.SIGSTOP)
    studio.act("stop", run="killed", is_finishing=True)
    os.kill(child, signal.SIGKILL)
    ended = wait_for_end(studio, job["number"])
    assert (ended["state"], studio.act("run", run="killed")["score"]) == ("failed", None)
    assert ended["problem"].startswith(
        "The process was stopped from outside; perhaps memory ran out. The run is saved"
    )


def test_a_training_can_be_stopped_at_any_moment(studio):
    for name, is_finishing in (("first", False), ("second", True)):
        job = studio.train(name)
        assert isinstance(studio.act("stop", number=job["number"], is_finishing=is_finishing), dict)
        wait_for(
            lambda: all(job["state"] in ("stopped", "done") for job in studio.act("state")["jobs"])
        )


def test_a_canceled_training_frees_its_name_at_once(studio):
    studio.train("first")
    wait_for_epochs(studio, "first")
    waiting = studio.train("second")
    assert studio.act("stop", run="second")["state"] == "stopped"
    again = studio.train("second")
    assert again["run"] == "second" and again["number"] != waiting["number"]
    studio.act("stop", run="first")
    wait_for_epochs(studio, "second")
    studio.act("stop", run="second")
    assert wait_for_end(studio, again["number"])["state"] == "stopped"


def test_a_job_has_its_time_limit_and_its_error_as_values(studio):
    values = {"net": SMALL, "source": "shapes", "fields": {"time": "90s"}, "name": "limited"}
    job = studio.act("train", **values)
    assert (job["seconds"], job["chooses_net"]) == (90, False)
    studio.act("stop", run="limited")
    (studio.folder / "photos").mkdir()
    failed = studio.act("inspect", source=str(studio.folder / "photos"))
    ended = wait_for_end(studio, failed["number"])
    assert ended["state"] == "failed" and str(studio.folder / "photos") in ended["problem"]


def test_few_commands_run_at_once(studio):
    numbers = [studio.act("inspect", source="shapes")["number"] for _ in range(6)]
    most = 0
    while True:
        states = {job["number"]: job["state"] for job in studio.act("state")["jobs"]}
        most = max(most, sum(states[number] == "running" for number in numbers))
        if all(states[number] == "done" for number in numbers):
            break
    assert 0 < most <= 2


def test_commands_that_answer_the_page_give_way_to_trainings(studio):
    def find_niceness(word: str) -> int | None:
        with contextlib.suppress(LookupError, ProcessLookupError):
            return os.getpriority(os.PRIO_PROCESS, studio.find_child(word))

    studio.train("run")
    assert wait_for(lambda: find_niceness("train") == os.getpriority(os.PRIO_PROCESS, 0))
    studio.act("inspect", source="shapes")
    assert wait_for(lambda: find_niceness("data") == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


def test_the_events_of_a_job_are_sent_to_each_page_in_order(studio):
    with studio.listening() as first, studio.listening() as second:
        number = studio.train("run", epochs=3)["number"]
        seen = []
        for events in (first, second):
            until = iter(events)
            seen.append([])
            while not seen[-1] or seen[-1][-1].get("state") != "done":
                seen[-1].append(next(until))
    assert seen[0] == seen[1]
    own = [event for event in seen[0] if number in (event.get("number"), event.get("job"))]
    states = [event["state"] for event in own if event["event"] == "job"]
    assert states == ["queued", "running", "done"]
    assert [event["epoch"] for event in own if event["event"] == "epoch"] == [1, 2, 3]


def test_a_second_interrupt_does_not_stop_the_saving(tmp_path):
    with opening(tmp_path) as studio:
        studio.train("long")
        wait_for_epochs(studio, "long", 2)
        child = studio.find_child("train")
        os.kill(child, signal.SIGSTOP)
        studio.process.send_signal(signal.SIGINT)
        wait_for(
            lambda: studio.act("train", net=SMALL, source="shapes").startswith(
                "The studio is ending"
            )
        )
        studio.process.send_signal(signal.SIGINT)
        studio.process.send_signal(signal.SIGTERM)
        assert studio.act("runs")[0]["name"] == "long"  # it still responds
        os.kill(child, signal.SIGCONT)
        assert studio.process.wait(60) == 128 + signal.SIGINT
    run = load_run(tmp_path / "runs" / "long")
    assert len(run.folder.read_epochs()) >= 2
    assert run.folder.read_checkpoint().standing.steps_done > 0


def test_an_interrupt_leaves_the_terminal_clean(tmp_path, capfd):
    for number in range(30):
        file = tmp_path / "pets" / ("cat" if number % 2 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(noise_png(number) if number else b"no image")
    with opening(tmp_path) as studio:
        source = str(tmp_path / "pets")
        job = studio.act(
            "train", net="Flatten(), Output()", source=source, fields={"epochs": "1"}, name="run"
        )
        wait_for_end(studio, job["number"])
        job = studio.act("resume", run="run")
        assert wait_for_end(studio, job["number"])["state"] == "done"
        with studio.connect() as page:
            page.sendall(
                f"GET /api/events HTTP/1.1\r\nHost: {studio.host}:{studio.port}\r\n\r\n".encode()
            )
            assert page.recv(9)
            studio.process.send_signal(signal.SIGINT)
            assert studio.process.wait(60) == 128 + signal.SIGINT
    folders = f"data: {tmp_path}; runs: {tmp_path / 'runs'}"
    assert capfd.readouterr().err == f"{folders}\nlamina: stopping\n"


def test_a_killed_studio_frees_the_names_that_it_has_reserved(tmp_path):
    with opening(tmp_path) as studio:
        studio.train("first")
        wait_for_epochs(studio, "first")
        assert studio.train("second")["state"] == "queued"
        assert not Jobs(tmp_path / "runs", Events()).reserve("second")
        training = studio.find_child("train")
        studio.process.kill()
        studio.process.wait()
        os.kill(training, signal.SIGKILL)
    with opening(tmp_path) as studio:
        assert studio.train("second")["state"] in ("queued", "running")
        studio.act("stop", run="second")

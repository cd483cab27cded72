"""What the studio accepts and refuses, and its parts without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina import load_data, load_run
from lamina.deploy.studio.event_log import EventLog
from lamina.deploy.studio.jobs import NICENESS, Jobs
from lamina.deploy.studio.recipe_fields import list_fields
from lamina.deploy.studio.services import OPENING
from lamina.deploy.web.torch_process import Call, ReplacedError, TorchProcess
from support.commands import run_well
from support.servers import encode, noise_png, wait_for
from support.studios import (
    BATCH_SIZE,
    LASTING,
    SMALL,
    opening,
    train_quickly,
    wait_for_end,
    wait_for_epochs,
    wait_for_score,
    write_classes,
)


def test_only_this_page_and_only_with_the_token_may_use_the_studio(tmp_path):
    with opening(tmp_path, "--token", "secret") as studio:
        assert studio.ask("/").status == 200  # the page that asks for the token
        assert studio.ask("/main.js").headers["content-type"].startswith("text/javascript")
        assert studio.ask("/api/runs", b"{}").status == 401
        assert studio.ask("/api/events").status == 401
        bearer = {"Authorization": "Bearer secret"}
        assert studio.ask("/api/runs", b"{}", **bearer).values == []
        assert studio.ask("/api/runs", b"{}", **bearer, Origin="http://evil.example").status == 403
        assert studio.ask("/api/runs", b"{}", **bearer, Sec_Fetch_Site="cross-site").status == 403
        assert studio.ask("/api/runs", b"{}", **bearer, Host="evil.example").status == 421
        policy = studio.ask("/").headers
        assert "script-src 'self'" in policy["content-security-policy"]
        assert policy["permissions-policy"].startswith("camera=(self)")
        for path in (
            "/../jobs.py",
            "/%2e%2e/jobs.py",
            "/uplot-license.txt",
            "/preact-license.txt",
            "/api/nothing",
            "/page.css/x",
        ):
            assert studio.ask(path, b"{}" if "api" in path else None, **bearer).status == 404


def test_a_studio_on_this_machine_alone_asks_for_a_token_that_its_address_contains(tmp_path):
    tokens = set()
    for _ in range(2):
        with opening(tmp_path, "--own-token") as studio:
            token = studio.announced.partition("#token=")[2]
            tokens.add(token)
            assert studio.ask("/api/runs", b"{}").status == 401
            assert studio.ask("/api/file?run=x&file=report.html").status == 401
            bearer = {"Authorization": f"Bearer {token}"}
            assert studio.ask("/api/runs", b"{}", **bearer).values == []
    assert len(tokens) == 2 and min(map(len, tokens)) >= 32


def test_a_browser_that_waits_for_the_page_gets_it_and_no_argument_has_the_token(tmp_path):
    browser = tmp_path / "browser.py"
    browser.write_text(
        "import pathlib, re, sys, urllib.request\n"
        "page = urllib.request.urlopen(sys.argv[1]).read().decode()\n"
        "url = re.search('url=([^\"]+)', page)[1]\n"
        "assert '#token=' in url and '#token=' not in sys.argv[1]\n"
        "body = urllib.request.urlopen(url).read()\n"
        "pathlib.Path(__file__).with_name('seen').write_text(sys.argv[1])\n"
    )
    browsing = {"BROWSER": f"{sys.executable} {browser} %s"}
    with opening(tmp_path, "--browser", "--own-token", **browsing):
        wait_for((tmp_path / "seen").exists)
        file = Path((tmp_path / "seen").read_text().removeprefix("file://"))
        assert file.parent.stat().st_mode & 0o777 == 0o700
    assert not file.parent.exists()


def test_the_process_that_serves_the_page_does_not_load_torch():
    code = "import sys, lamina.deploy.studio.opening; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_address_requires_a_token_which_the_studio_makes(tmp_path, capsys):
    from lamina.cli import main

    with opening(tmp_path, "--own-token", "--host", "0.0.0.0") as studio:
        assert len(studio.announced.partition("#token=")[2]) >= 32
        assert studio.ask("/api/runs", b"{}").status == 401
    assert main(["studio", "--host", "0.0.0.0", "--no-token", "--no-browser"]) == 2
    assert "which other machines can reach. Leave out --no-token." in capsys.readouterr().err
    assert main(["studio", "--token", "x", "--no-token", "--no-browser"]) == 2
    assert "--no-token lets everybody in. Leave out --token." in capsys.readouterr().err
    assert main(["studio", "--data", str(tmp_path / "none"), "--no-browser"]) == 2
    assert (
        "which is not a folder. Use the folder that contains your data sets"
        in capsys.readouterr().err
    )


def test_requests_that_make_no_sense_get_one_sentence(studio):
    assert studio.ask("/api/train", b"{").values["error"] == "The request is not JSON."
    assert studio.act("train").startswith("train lacks the field 'source'; its fields are ")
    assert "net.shape must be " in studio.act("net", text=SMALL, shape="wide")
    assert "net.shape[0] must be a whole number" in studio.act(
        "net", text=SMALL, shape=["x", 2, 3], outputs=10
    )
    assert "times.shape must be " in studio.act("times", text=SMALL, shape=[3], outputs=10)
    for action in ("preview", "inspect", "train"):
        refused = studio.act(action, source="shapes", size_px=99999)
        assert f"{action}.size_px must be " in refused
        refused = studio.ask(f"/api/{action}", b'{"source": "/\\ud800"}')
        assert refused.status == 422
        assert "a character that cannot be used" in refused.values["error"]
    assert "There is no " in studio.act(
        "correct", source=str(studio.folder / "no/such/set"), choices={"a": "b"}
    )
    assert not (studio.folder / "no").exists()
    assert "cell.truth must be a whole number, got True" in studio.act(
        "cell", run="x", problem=1, truth=True, predicted=0
    )
    assert "choices.a must be text, got 1" in studio.act(
        "correct", source="shapes", choices={"a": 1}
    )
    assert "epoch must be a number" in studio.act("continue", run="x", epoch=10**400)
    assert "is not an object" in studio.ask("/api/net", b"[1]").values["error"]
    assert "file name too long" in studio.act("preview", source=str(studio.folder / ("x" * 300)))
    assert "is not in" in studio.act("inspect", source="/etc")
    assert "is not in" in studio.act(
        "train", net=SMALL, source=str(studio.folder / ".." / "x"), fields={}
    )
    assert "There is no run '../../etc' in runs" in studio.act("run", run="../../etc")
    assert studio.act("stop", run="nothing") == "nothing has already ended."
    assert "not valid Python" in studio.act("net", text="Linear(")["problem"]
    assert studio.ask("/api/net", b'"' + b"x" * 2_000_000 + b'"').status == 413
    assert studio.ask("/api/net", b"[" * 90_000).status == 400
    assert "train.name must be text, got ['x']" in studio.act(
        "train", net="mlp", source="shapes", name=["x"]
    )
    assert "character of code 0" in studio.act(
        "train", net="mlp", source="shapes", fields={"epochs": "1\0"}
    )


def test_options_of_the_command_line_cannot_be_smuggled_in(studio):
    file = studio.folder / "net.py"
    file.write_text("raise SystemExit('executed')")
    for net in ("--help", str(file), f"{file}:build()", "timm:resnet18", "exec('1')"):
        said = studio.act("train", net=net, source="shapes")
        assert "not valid Python" in said or "expected a layer" in said or "is not a layer" in said
    for name in ("start-from", "runs_dir", "epochs=1 --data"):
        assert "A recipe has no field" in studio.act(
            "train", net="mlp", source="shapes", fields={name: "1"}
        )
    assert "got '1 --json'" in studio.act(
        "train", net="mlp", source="shapes", fields={"epochs": "1 --json"}
    )
    assert "time limit is '--help'" in studio.act(
        "train", net="mlp", source="shapes", fields={"time": "--help"}
    )


def test_values_that_no_training_can_have_start_none(studio):
    (studio.folder / "runs" / "run").mkdir(parents=True)
    (studio.folder / "runs" / "run" / "run.json").touch()
    refused = {
        "epochs": ("0", "abc", "3.5", "100001"),
        "lr": ("fast", "1e999"),
        "optimizer": ("adm",),
        "seed": ("(" * 9000,),
    }
    labels = {field["name"]: field["label"] for field in list_fields()}
    for name, texts in refused.items():
        for text in texts:
            for action, more in (
                ("train", {"net": SMALL, "source": "shapes"}),
                ("continue", {"run": "run", "epoch": 1}),
            ):
                assert studio.act(action, fields={name: text}, **more).startswith(
                    f"{labels[name]} must be "
                )
    assert "must be a number followed by s, m or h" in studio.act(
        "train", net=SMALL, source="shapes", fields={"time": "1x"}
    )
    assert studio.act("state")["jobs"] == []


def test_no_name_of_a_run_leads_out_of_the_runs_or_to_another_run(studio):
    outside = shutil.copytree(train_quickly(), studio.folder / "a")
    studio.copy_runs(outside, "here")
    before = read_files(studio.folder)
    for name in (str(outside), "../a", "..", ".hidden", "a/b", "a\\b", "a\nb"):
        assert "name must be one line without /" in studio.act(
            "train", net="mlp", source="shapes", name=name
        )
        for action in ("run", "resume", "report", "continue", "repeat"):
            more = {"epoch": 1} if action == "continue" else {}
            assert "There is no run" in studio.act(action, run=name, **more), (action, name)
    assert "There is already a run here" in studio.act(
        "train", net="mlp", source="shapes", name="here"
    )
    assert read_files(studio.folder) == before
    studio.train("b")
    assert "There is already a run b" in studio.act("train", net="mlp", source="shapes", name="b")
    names = [studio.act("train", net=SMALL, source="shapes")["run"] for _ in range(2)]
    assert names == ["net-1", "net-2"]  # other than lamina train chooses while they wait


def test_a_name_is_never_given_twice(studio):
    values = {"net": SMALL, "source": "shapes", "fields": {"epochs": "1"}}

    def train() -> str:
        job = studio.act("train", **values)
        assert wait_for_end(studio, job["number"])["state"] == "done"
        return job["run"]

    assert train() == "net-1"
    studio.act("rename-run", run="net-1", name="best")
    assert train() == "net-2"
    studio.act("delete-run", run="net-2")
    assert studio.act("train", **values)["run"] == "net-3"
    name = "x" * 101
    said = "The name has 101 characters; a run name may have at most 100"
    assert studio.act("train", **values, name=name).startswith(said)
    assert studio.act("rename-run", run="best", name=name).startswith(said)


def read_files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("schedule", ["cosine", "trapezoid"])
def test_finish_now_ends_with_an_evaluation_in_the_process_that_trains(studio, schedule):
    job = studio.train("run", schedule=schedule)
    wait_for_epochs(studio, "run")
    for _ in range(2):  # from two pages
        assert studio.act("stop", run="run", is_finishing=True)["is_finishing"]
    assert wait_for_end(studio, job["number"])["state"] == "done"
    run = studio.act("run", run="run")
    assert run["score"].startswith("test accuracy") and run["epochs"] < LASTING
    assert (run["is_finished"], len(run["rows"])) == (True, run["epochs"])
    again = studio.act("resume", run="run")  # trains the rest, or evaluates
    if schedule == "cosine":
        wait_for_epochs(studio, "run", run["epochs"] + 1)
        studio.act("stop", run="run", is_finishing=True)
    assert wait_for_end(studio, again["number"])["state"] == "done"


def test_a_training_that_cannot_be_saved_is_not_called_paused(studio):
    job = studio.train("full")
    wait_for_epochs(studio, "full")
    child = studio.find_child("train")
    resource.prlimit(child, resource.RLIMIT_FSIZE, (100, 100))  # as on a full disk
    studio.act("stop", run="full")
    ended = wait_for_end(studio, job["number"])
    assert (
        ended["state"] == "failed"
        and "The last checkpoint is intact. Free disk space" in ended["problem"]
    )


def test_a_training_that_is_being_paused_is_not_interrupted_in_its_saving(studio):
    job = studio.train("paused")
    wait_for_epochs(studio, "paused", 3)
    os.kill(child := studio.find_child("train"), signal.SIGSTOP)  # in a slow step
    studio.act("stop", run="paused")
    assert not studio.act("stop", run="paused", is_finishing=True)["is_finishing"]
    os.kill(child, signal.SIGCONT)
    assert wait_for_end(studio, job["number"])["state"] == "stopped"
    saved = max(studio.act("run", run="paused")["checkpoints"])
    assert saved >= studio.act("run", run="paused")["epochs"]  # no step is lost


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


def test_a_run_in_training_is_continued_from_where_the_page_says(studio):
    studio.train("long")

    def list_checkpoints() -> list[float]:
        run = studio.act("run", run="long")
        return run["checkpoints"] if isinstance(run, dict) else []

    wait_for(lambda: len(list_checkpoints()) > 2)
    chosen = list_checkpoints()[-1]
    wait_for(lambda: len(list_checkpoints()) > 4)
    job = studio.act("continue", run="long", epoch=chosen)
    assert (
        f"lamina train --start-from={studio.folder / 'runs' / 'long'}@{chosen:g}" in job["command"]
    )
    assert not job["chooses_net"]
    assert "has no checkpoint after epoch 0.5" in studio.act("continue", run="long", epoch=0.5)
    assert "Seed is 8, but" in studio.act(
        "continue", run="long", epoch=chosen, fields={"seed": "8"}
    )
    studio.act("stop", run="long")
    wait_for(lambda: isinstance(studio.act("run", run=job["run"]), dict))
    assert studio.act("run", run=job["run"])["parent_epoch"] == chosen


def test_a_preview_shows_images_and_classes_that_were_added(studio):
    rng = np.random.default_rng(0)

    def add(name: str, images: int) -> None:
        for _ in range(images):
            image, query = (
                encode(rng.integers(0, 256, (8, 8, 3), np.uint8)),
                f"set_name=pets&class_name={name}",
            )
            reply = studio.ask(
                f"/api/save-image?{query}", image, Content_Type="application/octet-stream"
            )
            assert reply.status == 200

    def preview() -> tuple[int, int, int]:
        found = studio.act("preview", source=str(studio.folder / "pets"), val="0.1")
        return found["outputs"], found["classes"], sum(found["images"].values())

    add("cat", 20)
    add("dog", 20)
    assert preview() == (2, 2, 40)
    add("cow", 20)
    add("dog", 5)
    assert preview() == (3, 3, 65)


def test_the_runs_of_a_study_can_be_opened(studio):
    words = ("--data=shapes", "--folds=2", "--epochs=1", f"--batch-size={BATCH_SIZE}")
    runs_dir = studio.folder / "runs"
    run_well("train", "Flatten(), Output()", *words, "--name=study", "--runs-dir", runs_dir)
    names = [one["name"] for one in studio.act("runs")]
    assert sorted(names) == ["study/final", "study/fold-1", "study/fold-2"]
    for name in names:
        assert studio.act("run", run=name)["name"] == name
        repeated = studio.act("repeat", run=name)
        assert (
            repeated["command"].startswith("lamina train")
            and "part of a study" in repeated["remarks"][0]
        )
    assert "lines" in studio.act("report", run="study/fold-1")
    compared = studio.act("compare", run="study/fold-1", others=["study/fold-2"])
    assert list(compared["differences"]) == ["study/fold-2"]
    assert "There is no run 'study'" in studio.act("run", run="study")
    (checkpoint,) = studio.act("run", run="study/final")["checkpoints"]
    for name in ("final-from-1-1", "final-from-1-2"):
        job = studio.act("continue", run="study/final", epoch=checkpoint, fields={"epochs": "2"})
        wait_for_end(studio, job["number"])
        assert job["run"] == name and studio.act("run", run=name)["parent"] == "study/final"


def test_what_waits_for_a_slow_result_is_replaced_by_a_newer_request_and_delays_nothing_quick(
    studio,
):
    studio.copy_runs(train_quickly(), "run")
    assert "predicted" in studio.act("look", run="run")
    assert "verdict" in studio.act("report", run="run")
    _, slow = studio.find_children("torch_process")
    os.kill(slow, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(8) as threads:

            def ask(action: str, page: str = "page"):
                values = {"run": "run", "replaces": f"{page} {action}"}
                return threads.submit(studio.act, action, **values)

            report = ask("report")
            time.sleep(0.3)  # the process has it
            explained = []
            for _ in range(4):
                explained.append(ask("explain"))
                time.sleep(0.1)
            other = ask("explain", page="other")
            replaced = [asked.result(20) for asked in explained[:3]]
            assert replaced == ["A newer request replaced this one."] * 3
            assert "predicted" in studio.act("look", run="run")  # needs no slow process
            os.kill(slow, signal.SIGCONT)
            assert "verdict" in report.result(60)
            assert "map" in explained[3].result(60) and "map" in other.result(60)
    finally:
        os.kill(slow, signal.SIGCONT)


def test_a_process_goes_on_with_a_call_whose_client_has_left():
    async def check() -> None:
        process = TorchProcess(OPENING)
        times = Call("lamina.training.layer_times.time_layers", (SMALL, (3, 32, 32), 10))
        try:
            assert len(await process.call(times)) == 5
            child = process._process.pid
            os.kill(child, signal.SIGSTOP)
            left = asyncio.create_task(process.call(times))
            await asyncio.sleep(0.1)
            left.cancel()
            waiting = asyncio.create_task(process.call(times, "key"))
            await asyncio.sleep(0.1)
            newer = asyncio.create_task(process.call(times, "key"))
            with pytest.raises(ReplacedError):
                await waiting
            os.kill(child, signal.SIGCONT)
            assert len(await newer) == 5 and process._process.pid == child
        finally:
            await process.close()

    asyncio.run(check())


def test_a_process_ends_when_its_parent_is_killed(tmp_path):
    code = """
import asyncio, time
from pathlib import Path
from lamina.deploy.web.torch_process import Call, TorchProcess

async def main():
    process = TorchProcess(Call("os.getpid"))
    Path("child").write_text(str(await process.start()))
    await process.compute(Call("time.sleep", (600,)), 600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as parent:
        wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
        child = Path("/proc", (tmp_path / "child").read_text())
        parent.kill()
    wait_for(lambda: not child.exists())


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


def test_nothing_is_downloaded_without_a_question(tmp_path):
    cache = tmp_path / "cache"
    with opening(tmp_path, LAMINA_CACHE=str(cache), LAMINA_CIFAR10="") as studio:
        assert studio.act("inspect", source="mnist") == {"download_mb": 12}
        assert studio.act("inspect", source="mnist", size_px=8) == {"download_mb": 12}
        said = studio.act("preview", source="mnist")
        assert said.startswith("mnist is not on this machine yet (12 MB).")
        assert "not on this machine yet" in studio.act("images", source="mnist", images=["1"])
        assert "not on this machine yet" in studio.act("train", source="mnist", net="mlp")
        assert studio.act("state")["jobs"] == []
    assert not list(cache.glob("downloads/*"))


def test_commands_that_answer_the_page_give_way_to_trainings(studio):
    def find_niceness(word: str) -> int | None:
        with contextlib.suppress(LookupError, ProcessLookupError):
            return os.getpriority(os.PRIO_PROCESS, studio.find_child(word))

    studio.train("run")
    assert wait_for(lambda: find_niceness("train") == os.getpriority(os.PRIO_PROCESS, 0))
    studio.act("inspect", source="shapes")
    assert wait_for(lambda: find_niceness("data") == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    assert "not timed while a net trains" in studio.act(
        "times", text=SMALL, shape=[3, 32, 32], outputs=10
    )


def test_a_second_interrupt_does_not_stop_the_saving_and_nothing_starts_meanwhile(tmp_path):
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
    assert len(run.folder.history.epochs()) >= 2
    assert run.folder.read_checkpoint().standing.steps_done > 0


def test_an_interrupt_with_an_open_page_and_warnings_of_data_leave_the_terminal_clean(
    tmp_path, capfd
):
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
        job = studio.act("continue", run="run", epoch=1, fields={"epochs": "2"})
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


def test_a_process_that_is_killed_is_replaced(studio):
    assert studio.act("runs") == []
    os.kill(studio.find_child("torch_process"), signal.SIGKILL)
    wait_for(lambda: studio.act("runs") == [])


def test_the_events_of_a_job_arrive_once_each_and_in_order(studio):
    studio.train("run", epochs=3)
    wait_for_score(studio, "run")
    found, after = [], ""
    for _ in range(3):  # a page that loses its connection asks for the rest
        found += studio.ask_stream(after, 5)
        after = found[-1][0]
    numbers = [int(mark.partition("-")[2]) for mark, _ in found]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {event["event"] for _, event in found} >= {"job", "remark"}


def test_a_killed_studio_frees_the_names_that_it_has_reserved(tmp_path):
    with opening(tmp_path) as studio:
        studio.train("first")
        wait_for_epochs(studio, "first")
        assert studio.train("second")["state"] == "queued"
        assert not Jobs(tmp_path / "runs", EventLog()).reserve("second")
        training = studio.find_child("train")
        studio.process.kill()
        studio.process.wait()
        os.kill(training, signal.SIGKILL)
    with opening(tmp_path) as studio:
        assert studio.train("second")["state"] in ("queued", "running")
        studio.act("stop", run="second")


@pytest.mark.parametrize(
    "values",
    [
        {"source": "photos", "net": "mlp"},
        {"source": "shapes", "net": "mlp", "val": "0.1", "fields": {"epochs": "1", "lr": "0.01"}},
        {"source": "shapes", "net": "mlp", "fields": {"recipe": "article", "epochs": "1"}},
        {"source": "shapes", "net": "mlp", "val": "0.1", "fields": {"time": "10s"}},
    ],
    ids=["photos", "shapes", "article", "time"],
)
def test_what_the_page_promises_is_what_the_run_has(studio, values):
    write_classes(studio.folder / "photos", 40)
    if values["source"] == "photos":
        values = values | {"source": str(studio.folder / "photos")}
    plan = studio.act("plan", **values)
    data = {name: value for name, value in values.items() if name in ("source", "val")}
    assert plan["problem"] is None
    assert plan["images"] == studio.act("preview", **data)["images"]
    job = studio.act("train", **values)
    assert wait_for_end(studio, job["number"])["state"] == "done"
    run = load_run(studio.folder / "runs" / job["run"])
    data = load_data(run.record.data.source, run.record.data.preparation)
    assert {split: len(images) for split, images in data.splits.items()} == plan["images"]
    recipe = {name: str(value) for name, value in vars(run.record.recipe).items()}
    if "time" in values.get("fields", {}):
        assert plan["fields"].pop("epochs") == "as many as fit"
        del recipe["epochs"]
    assert recipe == plan["fields"]


def test_one_s_own_photos_are_trained_as_by_the_command_line(studio):
    write_classes(studio.folder / "photos", 40)
    photos = str(studio.folder / "photos")
    job = studio.act("train", source=photos, fields={"time": "5m"})
    assert job["command"].startswith(f"lamina train --data={photos} --time=5m --name=photos-1")
    studio.act("stop", number=job["number"])
    plan = studio.act("plan", source=photos, fields={"time": "5m"})
    assert (plan["fields"], plan["problem"]) == ({}, None)
    assert plan["images"] == studio.act("preview", source=photos)["images"]


def test_a_plan_says_what_no_training_can_have(studio):
    def find_problem(**values) -> str:
        return studio.act("plan", **{"source": "shapes", "net": SMALL} | values)["problem"]

    assert "Learning rate must be a number" in find_problem(fields={"lr": "fast"})
    assert find_problem(fields={"lr": "1"}) is None
    problem = "Patience is 2, but shapes has no val split to measure improvement on."
    assert find_problem(fields={"patience": "2"}) == problem
    problem = "Random shift (px) is 99; it must be less than the image side, 32 px. Use 4."
    fields = {"translate_px": "99"}
    assert find_problem(fields=fields) == problem
    assert studio.act("train", source="shapes", net=SMALL, fields=fields) == problem
    problem = "Dropout is 0.5, but the net has no Dropout layer. Add one, or leave out dropout."
    assert find_problem(fields={"dropout": "0.5"}) == problem
    assert "5s is too short to train and test" in find_problem(fields={"time": "5s"})
    problem = "90 % for val and 20 % for test (the default) leave no training images."
    photos = str(studio.folder / "photos")
    write_classes(studio.folder / "photos", 40)
    assert find_problem(source=photos, net="", val="0.9") == problem
    assert "Empty one of them" in find_problem(fields={"time": "5m", "epochs": "2"})
    assert "has 10 outputs, not 3" in find_problem(net="Flatten(), Output(3)")
    shutil.rmtree(studio.folder / "photos" / "round")
    assert "only one class" in find_problem(source=photos, net="")


def test_an_untrained_net_draws_what_changes_the_image(studio):
    text = "Conv2d(4, 3), BatchNorm(), ReLU(), Dropout(0.5), Flatten(), Output()"
    forward = studio.act("forward", source="shapes", text=text, row=3)
    kinds = [layer and sorted(layer) for layer in forward["layers"]]
    maps = ["maps", "units"]
    assert kinds == [maps, None, maps, None, None, ["values"]]
    assert forward["image"] and forward["target"] == "triangle"
    assert "must end with the 10 outputs" in studio.act(
        "forward", source="shapes", text="Flatten()"
    )
    huge = "Flatten(), Linear(1000000), Output()"
    assert "too large to be tried" in studio.act("forward", source="shapes", text=huge)


def test_a_run_is_renamed_with_what_came_from_it(studio):
    studio.copy_runs(train_quickly(), "first")
    studio.copy_runs(train_quickly(), "first-2")
    (epoch, *_) = studio.act("checkpoints", run="first")
    job = studio.act("continue", run="first", epoch=epoch, fields={"epochs": "3"})
    assert "is in use" in studio.act("rename-run", run="first", name="a first try")
    assert wait_for_end(studio, job["number"])["state"] == "done"
    assert studio.act("rename-run", run="first", name="a first try") == {"run": "a first try"}
    runs = {run["name"]: run for run in studio.act("runs")}
    child = runs[job["run"]]
    assert set(runs) == {"a first try", "first-2", job["run"]}
    assert (child["parent"], child["parent_epoch"]) == ("a first try", epoch)
    said = studio.act("repeat", run=job["run"])
    moved = f"{studio.folder}/runs/a first try@{epoch:g}"
    assert moved in said["command"] and moved in said["python"]
    assert studio.act("report", run="a first try")["verdict"]
    for name in ("", "../a", ".a", "a/b", "first-2", "con"):
        assert isinstance(studio.act("rename-run", run="a first try", name=name), str), name
    assert studio.act("rename-run", run="first-2", name="first") == {"run": "first"}
    assert studio.act("train", source="shapes", net=SMALL, name="first-2")["run"] == "first-2"


def test_a_deleted_run_can_be_restored_until_the_studio_ends(tmp_path):
    with opening(tmp_path) as studio:
        studio.copy_runs(train_quickly(), "first", "second")
        before = read_files(studio.folder / "runs")
        deleted = studio.act("delete-run", run="first")
        assert [run["name"] for run in studio.act("runs")] == ["second"]
        assert "There is no run" in studio.act("run", run="first")
        studio.copy_runs(train_quickly(), "first")
        assert "another run first" in studio.act("restore-run", **deleted)
        shutil.rmtree(tmp_path / "runs" / "first")
        assert studio.act("restore-run", **deleted) == {"run": "first"}
        after = read_files(studio.folder / "runs")
        assert {file: after[file] for file in before} == before
        assert "no longer be restored" in studio.act("restore-run", **deleted)
        assert "Reload the page" in studio.act("restore-run", deleted="../second")
        studio.act("delete-run", run="second")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["first"]


def test_runs_of_studies_links_and_runs_in_training_stay(studio):
    studio.copy_runs(train_quickly(), "here", "study/fold-1")
    (studio.folder / "runs" / "study" / "study.json").write_text("{}")
    outside = shutil.copytree(train_quickly(), studio.folder / "outside")
    (studio.folder / "runs" / "link").symlink_to(outside)
    studio.train("busy")
    wait_for_epochs(studio, "busy")
    reasons = {"study/fold-1": "part of a study", "link": "is a link", "busy": "is in use"}
    for run, reason in reasons.items():
        assert reason in studio.act("delete-run", run=run)
        assert reason in studio.act("rename-run", run=run, name="new")
    elsewhere = studio.folder / "elsewhere"
    elsewhere.mkdir()
    (studio.folder / "runs" / ".deleted").symlink_to(elsewhere)
    assert "is a link" in studio.act("delete-run", run="here")
    assert list(elsewhere.iterdir()) == []


def test_a_note_stays_with_its_run(studio):
    studio.copy_runs(train_quickly(), "first")
    assert studio.act("runs")[0]["note"] == ""
    assert studio.act("note-run", run="first", note=" the best\nso far ") == {}
    studio.act("rename-run", run="first", name="best")
    assert studio.act("run", run="best")["note"] == "the best\nso far"
    assert "it may have 4,000" in studio.act("note-run", run="best", note="x" * 4001)
    assert studio.act("note-run", run="best", note="") == {}
    assert studio.act("runs")[0]["note"] == ""
    (studio.folder / "runs" / "best" / "note.txt").symlink_to("/etc/passwd")
    assert studio.act("runs")[0]["note"] == ""


def test_a_run_says_whether_it_is_better_than_guessing(studio):
    studio.copy_runs(train_quickly(), "first")
    (run,) = studio.act("runs")
    report = load_run(studio.folder / "runs" / "first").report
    assert run["is_better"] == (report.baseline.gain >= 0.1 * (1 - report.baseline.value))
    assert run["epochs"] == run["planned"] == 2 and run["seconds"] > 0
    (studio.folder / "runs" / "first" / "report.json").unlink()
    assert studio.act("runs")[0]["is_better"] is None


def test_messages_of_commands_name_no_options(studio):
    photos = studio.folder / "photos"
    write_classes(photos, 40)
    write_classes(photos, 4, other="rare")
    Image.new("RGB", (96, 24)).save(photos / "round" / "wide.png")
    shutil.copy(photos / "round" / "1.png", photos / "round" / "again.png")
    inspected = studio.act("inspect", source=str(photos))
    assert wait_for_end(studio, inspected["number"])["state"] == "done"
    fields = {"epochs": "1", "lr": "1e30", "optimizer": "sgd"}
    failed = studio.act("train", net=SMALL, source=str(photos), fields=fields)
    problem = wait_for_end(studio, failed["number"])["problem"]
    assert problem.endswith("Train again with a lower learning rate.") and "lr" not in problem
    after, events = "", [{"state": ""}]
    while events[-1].get("state") != "failed":
        ((after, event),) = studio.ask_stream(after, 1)
        events.append(event)
    told = [event["text"] for event in events[1:] if event["event"] == "remark"]
    (data,) = (event for event in events[1:] if event["event"] == "data")
    told += [finding["message"] for finding in data["findings"]]
    twins = [image["name"] for finding in data["findings"] for image in finding["images"]]
    assert any("round/1.png" in name and " = " in name for name in twins)
    assert any("size: resized to" in text for text in told)
    assert any("keep less than half" in text or "so wide or tall" in text for text in told)
    assert not [text for text in (*told, problem) if "--" in text or "in Python" in text]

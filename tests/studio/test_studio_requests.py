"""What the studio accepts and refuses, and its parts without a browser."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from importlib.resources import files
from pathlib import Path

import pytest
from opened import SMALL, opening, wait_for
from served import noise

from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.event_log import KEPT_EVENTS, EventLog
from lamina.deploy.studio.jobs import CHECKPOINTS, keep_checkpoint
from lamina.deploy.studio.net_cards import list_layers, list_presets, show_net, split_text, write_layer
from lamina.errors import DataError
from lamina.nets import parse_net
from lamina.nets.costs import summarize_layers

PAGE = files("lamina.deploy.studio").joinpath("page")


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
        for path in ("/../jobs.py", "/%2e%2e/jobs.py", "/uplot-license.txt", "/api/nothing", "/page.css/x"):
            assert studio.ask(path, b"{}" if "api" in path else None, **bearer).status == 404


def test_another_address_requires_a_token(tmp_path, capsys):
    from lamina.cli import main

    assert main(["studio", "--host", "0.0.0.0", "--no-browser"]) == 2
    assert "which other machines can reach, but there is no token" in capsys.readouterr().err
    assert main(["studio", "--data", str(tmp_path / "none"), "--no-browser"]) == 2
    assert "which is not a folder. Use the folder that contains your data sets" in capsys.readouterr().err


def test_requests_that_make_no_sense_get_one_sentence(studio):
    assert studio.ask("/api/train", b"{").values["error"] == "The request is not JSON."
    assert "lacks a value" in studio.act("train")
    assert "is not in" in studio.act("inspect", source="/etc")
    assert "is not in" in studio.act("train", net=SMALL, source=str(studio.folder / ".." / "x"), fields={})
    assert "There is no run '../../etc' in runs" in studio.act("run", run="../../etc")
    assert studio.act("stop", run="nothing") == "nothing has already ended."
    assert "not valid Python" in studio.act("net", text="Linear(")["problem"]
    assert studio.ask("/api/net", b'"' + b"x" * 2_000_000 + b'"').status == 413
    assert studio.ask("/api/net", b"[" * 200_000).status == 400
    assert "name is ['x']; it must be a text" in studio.act("train", net="mlp", source="shapes", name=["x"])
    assert "it must be a text" in studio.act("train", net="mlp", source="shapes", fields={"epochs": "1\0"})


def test_options_of_the_command_line_cannot_be_smuggled_in(studio):
    file = studio.folder / "net.py"
    file.write_text("raise SystemExit('executed')")
    for net in ("--help", str(file), f"{file}:build()", "timm:resnet18", "exec('1')"):
        said = studio.act("train", net=net, source="shapes")
        assert "not valid Python" in said or "expected a layer" in said or "is not a layer" in said
    for name in ("start-from", "runs_dir", "epochs=1 --data"):
        assert "A recipe has no field" in studio.act("train", net="mlp", source="shapes", fields={name: "1"})
    job = studio.act("train", net="mlp", source="shapes", fields={"epochs": "1 --json"})
    ended = wait_for(lambda: next((one for one in studio.act("state")["jobs"] if one["state"] == "failed"), None))
    assert ended["number"] == job["number"]
    assert "--epochs is '1 --json'" in ended["problem"]
    studio.act("train", net="mlp", source="shapes", fields={"epochs": "1"}, name="../up")
    studio.act("train", net="mlp", source="shapes", time="--help")
    wait_for(lambda: sum(one["state"] == "failed" for one in studio.act("state")["jobs"]) == 3)
    assert not (studio.folder / "up").exists()


def test_a_process_that_is_killed_is_replaced(studio):
    assert studio.act("runs") == []
    os.kill(studio.find_child("--multiprocessing-fork"), signal.SIGKILL)
    wait_for(lambda: studio.act("runs") == [])


def test_the_events_of_a_job_arrive_once_each_and_in_order(studio):
    studio.act("train", net=SMALL, source="shapes", fields={"epochs": "3"}, name="run")
    wait_for(lambda: any(one["name"] == "run" and one["score"] for one in studio.act("runs")))

    found, after = [], ""
    for _ in range(3):  # a page that loses its connection asks for the rest
        found += studio.ask_stream(after, 5)
        after = found[-1][0]
    numbers = [int(mark.partition("-")[2]) for mark, _ in found]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {event["event"] for _, event in found} >= {"job", "remark"}


def test_a_page_that_missed_too_much_is_told_so_once():
    async def first(mark: str) -> bytes:
        stream = log.stream(mark)
        found = await anext(stream)
        await stream.aclose()
        return found

    async def check() -> None:
        for number in range(KEPT_EVENTS + 10):
            log.add({"event": "step", "step": number})
        lost = await first(f"{log.name}-3")
        assert b'"lost"' in lost
        mark = lost.decode().split("\n")[0].removeprefix("id: ")
        assert b'"lost"' not in await first(mark)  # the page goes on from there
        assert b'"lost"' not in await first(log.mark(0))  # what a page that opens now is told
        assert b'"lost"' in await first(f"other-{log.last}")  # of a studio that was started again

    log = EventLog()
    asyncio.run(check())


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset["name"])
def test_the_cards_of_every_net_have_its_costs(preset):
    shape = (3, 64, 64)
    found = show_net(split_text(preset["text"]), shape, 10)
    assert found["problem"] is None
    assert found["text"] == preset["text"]
    expected = summarize_layers(parse_net(preset["text"]).with_outputs(10).layers, shape)
    assert (found["parameters"], found["multiply_adds"]) == (expected.parameters, expected.multiply_adds)
    assert [tuple(card["shape"]) for card in found["cards"]] == list(
        parse_net(preset["text"]).with_outputs(10).shapes(shape)[1:]
    )


@pytest.mark.parametrize("layer", list_layers(), ids=lambda layer: layer["name"])
def test_every_layer_can_be_added_and_edited(layer):
    (card,) = show_net([layer["text"]], None, None)["cards"]
    assert card["name"] == layer["name"]
    assert layer["meaning"]
    if card["arguments"] is not None:
        arguments = {one["name"]: one["value"] for one in card["arguments"]}
        assert repr(parse_net(write_layer({"name": card["name"], "arguments": arguments}))[0]) == card["text"]


def test_an_error_is_at_the_card_that_causes_it():
    found = show_net(["Conv2d(8, 3)", "Linear(9)", "Output()"], (3, 32, 32), 10)
    assert [("problem" in card) for card in found["cards"]] == [False, True, False]
    assert found["problem"].startswith("layer 2 of 3, Linear(9): expected a vector")
    assert show_net(["Flatten()"], (3, 8, 8), 10)["cards"][-1]["problem"]
    assert show_net([], (3, 8, 8), 10)["problem"] == "The net has no layers. Add one, such as Output()."


def test_data_sets_are_found_under_the_folder_and_nowhere_else(tmp_path):
    for name in (
        "pets/cat/1.png",
        "pets/dog/1.png",
        "seen/train/cat/1.png",
        "runs/x/curves.png",
        "texts/a/1.txt",
        ".git/a/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(noise())
    (tmp_path / "digits.npz").write_bytes(b"")
    folder = DataFolder(tmp_path, tmp_path / "runs")
    listed = [one["name"] for one in folder.list_sources()]
    assert listed[: listed.index("shapes")] == ["digits.npz", "pets", "seen"]
    assert DataFolder(tmp_path / "pets", Path("runs")).list_sources()[0]["name"] == "pets"
    assert folder.check(str(tmp_path / "pets")) == str(tmp_path / "pets")
    outside = tmp_path.parent / "outside"
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(DataError, match="Choose a data set from the list"):
        folder.correct(f"{tmp_path}/../{tmp_path.name}/../x", {"a": "b"})
    assert folder.find_corrections(f"{tmp_path}/pets/../pets") == tmp_path / "pets-corrections.csv"
    for source in ("/etc", str(tmp_path / ".." / "x"), "pets", str(tmp_path / "link")):
        with pytest.raises(DataError, match="Choose a data set from the list"):
            folder.check(source)


def test_the_checkpoint_of_each_epoch_is_kept_until_they_take_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("lamina.deploy.studio.jobs.KEPT_BYTES", 450)
    for epoch in range(6):
        beside = tmp_path / "new"
        beside.write_bytes(bytes([epoch]) * 100)
        beside.rename(tmp_path / "state.safetensors")  # as lamina replaces it
        os.utime(tmp_path / "state.safetensors", ns=(epoch, epoch))
        keep_checkpoint(tmp_path)
        keep_checkpoint(tmp_path)
    kept = sorted((tmp_path / CHECKPOINTS).iterdir(), key=lambda file: int(file.stem))
    assert [file.read_bytes()[0] for file in kept] == [0, 2, 4, 5]
    keep_checkpoint(tmp_path / "none")  # a run without checkpoint


def test_the_charting_library_is_the_one_that_is_named():
    lines = PAGE.joinpath("uplot-license.txt").read_text().splitlines()
    for digest, name, _ in (line.split(maxsplit=2) for line in lines[1:3]):
        assert hashlib.sha256(PAGE.joinpath(name).read_bytes()).hexdigest() == digest

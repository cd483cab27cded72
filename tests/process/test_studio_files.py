"""Files and bytes that pages send to the studio or ask of it."""

from __future__ import annotations

import dataclasses

from PIL import Image

from lamina import Recipe, load_data, load_run, start_run
from lamina.nets import Flatten, Net, Output
from lamina.runs import repeating
from lamina.runs.continuing import list_checkpoints
from lamina.runs.kept_checkpoints import keep_checkpoint
from support import forking
from support.images import encode
from support.runs import begin_run
from support.servers import HOSTILE_FILES
from support.studios import train_quickly

LINEAR = Net(Flatten(), Output())


def test_hostile_bytes_are_refused_and_only_made_files_are_served(studio):
    studio.copy_runs(train_quickly(), "single")

    def post(action: str, body: bytes) -> tuple[int, dict]:
        reply = studio.ask(
            f"/api/{action}?run=single", body, Content_Type="application/octet-stream"
        )
        return reply.status, reply.values

    for body in HOSTILE_FILES.values():
        status, values = post("look", body)
        assert status == 422 and values["error"].startswith("This file cannot be used")
    assert post("look", encode(Image.new("RGB", (40, 30))))[0] == 200
    assert post("look", bytes(32_000_001))[0] == 413
    assert "look.image must be" in studio.act("look", run="single", image="/etc/passwd")
    assert "no run" in studio.act("report", run="../single")
    for query in (
        "run=single&file=run.json",
        "run=single&file=..%2Fsingle%2Frun.json",
        "run=..&file=report.html",
        "",
    ):
        assert studio.ask(f"/api/file?{query}").status == 404
    page = studio.folder / "runs" / "single" / "report.html"
    page.write_text("<script>alert(1)</script>")
    reply = studio.ask("/api/file?run=single&file=report.html")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    assert reply.headers["content-disposition"] == 'attachment; filename="single-report.html"'
    page.unlink()
    page.symlink_to("/etc/passwd")
    assert studio.ask("/api/file?run=single&file=report.html").status == 404
    page.unlink()
    assert studio.act("make", run="single", file="run.json").startswith(
        "The studio cannot make 'run.json'"
    )


def test_python_repeats_a_run_and_its_continuation_to_the_same_weights(tmp_path):
    recipe = Recipe(epochs=3, batch_size=200, lr=0.01)
    (tmp_path / "runs").mkdir()
    run = begin_run(
        LINEAR,
        load_data("shapes"),
        recipe,
        net_name="tiny",
        name="origin",
        runs_dir=tmp_path / "runs",
    )
    events = run.iter_train()
    next(event for event in events if type(event).__name__ == "Epoch")
    events.close()
    keep_checkpoint(run.path)
    run.train(progress=False)
    changed = dataclasses.replace(recipe, lr=0.001)
    start = {"start_from": f"{run.path.resolve()}@1", "name": "next", "runs_dir": tmp_path / "runs"}
    continued = start_run(recipe=changed, **start)
    continued.train(progress=False)
    for one in (run, continued):
        described = repeating.describe_reproduction(one.path)
        assert described["command"] == "" and described["remarks"] == []
        folder = tmp_path / f"again-{one.path.name}"
        folder.mkdir()
        repeated = forking.run(code=described["python"], cwd=folder)
        assert repeated.returncode == 0, repeated.stderr
        (again,) = (folder / "runs").iterdir()
        assert (
            load_run(again).folder.history.epochs()[-1]["weights"]
            == one.folder.history.epochs()[-1]["weights"]
        )
    for file in list_checkpoints(run.path).values():
        file.unlink()
    described = repeating.describe_reproduction(continued.path)
    assert described["python"] == "" and "no checkpoint after epoch 1" in described["remarks"][0]

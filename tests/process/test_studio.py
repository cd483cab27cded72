"""Who may use the studio, and which requests it refuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lamina.deploy.studio.recipe_fields import list_fields
from support.images import encode
from support.servers import HOSTILE_FILES, wait_for
from support.studios import (
    SMALL,
    opening,
    train_quickly,
    write_classes,
)


def test_the_studio_is_for_its_own_page_with_the_token(tmp_path):
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
            "/page.css/x",
        ):
            assert studio.ask(path, b"{}" if "api" in path else None, **bearer).status == 404


def test_a_studio_makes_a_token_which_its_address_contains(tmp_path):
    tokens = set()
    for words in ((), ("--host", "0.0.0.0")):
        with opening(tmp_path, "--own-token", *words) as studio:
            token = studio.announced.partition("#token=")[2]
            tokens.add(token)
            assert studio.ask("/api/runs", b"{}").status == 401
            assert studio.ask("/api/file?run=x&file=report.html").status == 401
            bearer = {"Authorization": f"Bearer {token}"}
            assert studio.ask("/api/runs", b"{}", **bearer).values == []
    assert len(tokens) == 2 and min(map(len, tokens)) >= 32


def test_a_browser_gets_the_token_and_its_arguments_do_not(tmp_path):
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


def test_requests_that_make_no_sense_get_one_sentence(studio):
    assert studio.ask("/api/train", b"{").values["error"] == "The request is not JSON."
    assert studio.act("train").startswith("train lacks the field 'source'; its fields are ")
    assert "net.shape must be " in studio.act("net", text=SMALL, shape="wide")
    assert "net.shape[0] must be a whole number" in studio.act(
        "net", text=SMALL, shape=["x", 2, 3], outputs=10
    )
    assert "net.shape must be " in studio.act("net", text=SMALL, shape=[3], outputs=10)
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
    assert studio.act("nothing") == "The studio has no 'nothing'. Reload the page."
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
            refusal = studio.act("train", fields={name: text}, net=SMALL, source="shapes")
            assert refusal.startswith(f"{labels[name]} must be ")
    assert "must be a number followed by s, m or h" in studio.act(
        "train", net=SMALL, source="shapes", fields={"time": "1x"}
    )
    assert studio.act("state")["jobs"] == []


def test_no_name_of_a_run_leads_elsewhere(studio):
    outside = shutil.copytree(train_quickly(), studio.folder / "a")
    studio.copy_runs(outside, "here")
    before = read_files(studio.folder)
    for name in (str(outside), "../a", "..", ".hidden", "a/b", "a\\b", "a\nb"):
        assert "name must be one line without /" in studio.act(
            "train", net="mlp", source="shapes", name=name
        )
        for action in ("run", "resume", "report", "delete-run"):
            assert "There is no run" in studio.act(action, run=name), (action, name)
    assert "There is already a run here" in studio.act(
        "train", net="mlp", source="shapes", name="here"
    )
    assert read_files(studio.folder) == before
    studio.train("b")
    assert "There is already a run b" in studio.act("train", net="mlp", source="shapes", name="b")
    names = [studio.act("train", net=SMALL, source="shapes")["run"] for _ in range(2)]
    assert names == ["net-1", "net-2"]  # other than lamina train chooses while they wait


def read_files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


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


def test_hostile_bytes_are_refused_and_only_results_served(studio):
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

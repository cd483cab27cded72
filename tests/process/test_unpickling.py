"""No command looks up a name for a pickle."""

from __future__ import annotations

from support import forking
from support.images import write_images

# An audit hook sees every name that any unpickler looks up, wherever it is called from.
AUDITED = """
import sys
found = []
from lamina.cli import main
from lamina.data.sources import published
import lamina.drawing, torch._dynamo
def audit(event, arguments):
    if event == "pickle.find_class":
        found.append(arguments)
sys.addaudithook(audit)
source, image = sys.argv[1:]
net = "Flatten(), Linear(4), ReLU(), Output()"
statuses = [
    main(["train", net, "--data", source, "--epochs", "1", "--name", "run"]),
    main(["train", "--start-from", "runs/run", "--epochs", "2"]),
    main(["reproduce", "runs/run"]),
    main(["evaluate", "runs/run"]),
    main(["predict", "runs/run", image]),
    main(["runs", "--diff", "runs/run", "runs/run"]),
]
print(statuses, found)
"""


def test_no_command_unpickles_anything(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 12)
    arguments = [str(tmp_path / "images"), str(tmp_path / "images" / "dark" / "0.png")]
    done = forking.run(*arguments, code=AUDITED)
    assert done.stdout.splitlines()[-1:] == ["[0, 0, 0, 0, 0, 0] []"], done.stderr

"""What ``lamina serve`` and ``lamina studio`` refuse before they start."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from lamina.cli.serve import name_runs
from support.commands import run_lamina, run_refused
from support.runs import DATA
from support.servers import save_untrained


@pytest.fixture(scope="module")
def untrained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("runs"), "untrained", DATA.train).path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["RUN", "--host", "0.0.0.0"],
            "--host is 0.0.0.0, which other machines can reach, but there is no token. Set"
            " LAMINA_TOKEN to a secret, or use --token.",
        ),
        (
            ["RUN", "--token", "café"],
            "The token cannot be sent in an HTTP header; it must be printable ASCII without"
            " spaces at its ends. Choose another token.",
        ),
        (
            ["RUN", "--max-mb", "0"],
            "--max-mb is 0; it must be from 1 to 256. Use --max-mb 10.",
        ),
        (
            ["RUN", "--port", "TAKEN"],
            "Cannot listen on port TAKEN of 127.0.0.1: Address already in use",
        ),
    ],
)
def test_what_cannot_be_served_gets_one_message(untrained_run, workplace, arguments, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        def fill(text: str) -> str:
            return text.replace("TAKEN", port).replace("RUN", str(untrained_run))

        done = run_lamina("serve", *map(fill, arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lamina: {fill(message)}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--host", "0.0.0.0", "--no-token"],
            "which other machines can reach. Leave out --no-token.",
        ),
        (["--token", "x", "--no-token"], "--no-token lets everybody in. Leave out --token."),
        (
            ["--data", "none"],
            "which is not a folder. Use the folder that contains your data sets",
        ),
    ],
)
def test_a_studio_open_to_strangers_or_without_data_is_refused(workplace, words, message):
    assert message in run_refused("studio", *words, "--no-browser")


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_a_package_that_a_server_lacks_is_named(untrained_run, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert run_refused("serve", untrained_run, "--port", "0") == (
        f"lamina: lamina serve requires {name}, which is not installed. Run pip install"
        " 'lamina[serve]'\n"
    )


def test_runs_of_one_folder_name_have_their_paths_as_names():
    names = name_runs([Path("a/pets"), Path("b/pets"), Path("c/birds"), Path("a/pets")])
    assert names == {"a/pets": "a/pets", "b/pets": "b/pets", "birds": "c/birds"}

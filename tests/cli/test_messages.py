"""What lamina says to a person who asks for something that is not there, word by word."""

import subprocess
import sys

import pytest

from lamina.cli import COMMANDS, main
from support.commands import events, run_lamina

CASES = {
    "trian": "Unknown command 'trian'. Did you mean train?",
    "train cnnn --data shapes": (
        "There is no net 'cnnn' in the zoo. Did you mean cnn? Or use layers, such as \"Flatten(),"
        ' Linear(200), ReLU(), Output()", or on the command line a .py file.'
    ),
    "train none.py --data shapes": (
        "The file none.py does not exist. Use the path of a Python file that defines a Net."
    ),
    "train cnn --recipe bets --data shapes": "cnn has no recipe 'bets'. Did you mean best?",
    "train mlp --data shapes --epochs 0": (
        "epochs must be a whole number of at least 1, got 0. Try --epochs 10."
    ),
    "train mlp --data nowhere/at/all": (
        "No data set, file or folder named nowhere/at/all. Check the path."
    ),
    "train mlp --data shapse": "No data set, file or folder named shapse. Did you mean shapes?",
    "evaluate runs/none": (
        "No run named none in runs. No runs were found there. Train one with lamina train."
    ),
    "evaluate none": (
        "No run named none in this folder or runs. No runs were found there. Train one with lamina"
        " train."
    ),
    "predict runs/none": "No images given. Add image files, folders or patterns after RUN.",
    "serve": "No runs given. Add their paths, as in lamina serve runs/pets.",
    "serve none --port 70000": "--port is 70000; it must be from 0 to 65535. Use --port 8000.",
    "summary cnn --input 3x32": (
        "--input is '3x32'; it must be channels, height and width. Use --input 3x32x32."
    ),
    "reproduce --data shapes-pose": (
        "The article's nets predict one class per image, but the targets of shapes-pose "
        "are regression. Use --data cifar10."
    ),
    "reproduce --epochs 2": "--epochs requires a run. Add RUN, as in lamina reproduce runs/pets.",
    "reproduce --net mine.py": "--net requires a run. Add RUN, as in lamina reproduce runs/pets.",
    "reproduce runs/x --seeds 2": (
        "--seeds applies to the article's nets, but RUN is runs/x. Leave out --seeds or RUN."
    ),
    "reproduce runs/x --device cpu": (
        "--device applies to the article's nets, but RUN is runs/x. Leave out --device or RUN."
    ),
    "reproduce --seeds 0": "--seeds is 0; it must be at least 1. Use --seeds 5.",
}


def test_a_warning_is_one_line_without_a_place_in_the_source(workplace, image_set):
    for name in ("first", "second"):
        train = (
            "train",
            "Flatten(), Output()",
            "--data",
            image_set,
            "--epochs",
            "1",
            "--name",
            name,
        )
        assert run_lamina(*train).returncode == 0
    history = workplace / "runs/second/history.jsonl"
    with history.open("a") as opened:
        opened.write('{"epoch": 2')
    warning = (
        "warning: The last line of runs/second/history.jsonl is incomplete, probably after a crash,"
        " and is ignored. lamina resume repeats that epoch."
    )
    for command in (
        ("reproduce", "second"),
        ("runs", "--diff", "runs/first", "runs/second"),
        ("runs",),
    ):
        done = run_lamina(*command)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines().count(warning) == 1
        assert "history.py" not in done.stderr


@pytest.mark.parametrize(("command", "message"), CASES.items())
def test_wrong_input_gets_one_message_and_status_2(workplace, capsys, command, message):
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"lamina: {message}"
    assert "Traceback" not in err
    assert not (workplace / "runs").exists()


def test_help_names_every_command_and_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys; from lamina.cli import main; import lamina; main(['--help']); "
        "print(sorted({'torch', 'matplotlib', 'numpy', 'rich', 'tyro'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_loads_neither_torch_nor_matplotlib(command):
    code = f"""
import sys
from lamina.cli import main
try:
    main([{command!r}, "--help"])
finally:
    print(sorted({{"torch", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: lamina {command}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_summary_shows_the_articles_sizes(capsys):
    assert main(["summary", "cnn"]) == 0
    assert "total\t\t591,914\t10,847,488\t\n" in capsys.readouterr().out
    assert main(["summary", "mlp", "--json"]) == 0
    (summary,) = events(capsys.readouterr().out)
    assert summary["parameters"] == 308_310


@pytest.mark.parametrize("words", [["summary", "cnn"], ["data", "shapes", "--size", "8"]], ids=str)
def test_what_needs_no_torch_does_not_load_it(words):
    code = (
        f"import sys; from lamina.cli import main; main({words}); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_a_reader_that_goes_away_is_no_bug():
    command = f"{sys.executable} -m lamina summary cnn | true; echo ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    # 0 where all fitted into the pipe before its reader went away
    assert shown.stdout in ("141\n", "0\n")

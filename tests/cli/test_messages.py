"""What lamina says to a person who asks for something that is not there, word by word."""

import json
import shutil
from pathlib import Path

import pytest

from lamina import zoo
from lamina.cli import main
from support.commands import events, run_well, train_once

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
        "epochs must be a whole number from 1 to 100,000, got 0. Try --epochs 10."
    ),
    "train mlp --data nowhere/at/all": (
        "No data set, file or folder named nowhere/at/all. Check the path."
    ),
    "train mlp --data shapse": "No data set, file or folder named shapse. Did you mean shapes?",
    "evaluate none": ("No run named none in this folder or runs. Train one with lamina train."),
    "predict runs/none": "No images given. Add image files, folders or patterns after RUN.",
    "serve": "No runs given. Add their paths, as in lamina serve runs/pets.",
    "serve none --port 70000": "--port is 70000; it must be from 0 to 65,535. Use --port 8000.",
    "summary cnn --input 3x32": (
        "--input is '3x32'; it must be channels, height and width. Use --input 3x32x32."
    ),
    "reproduce --epochs 2": "Without RUN, lamina trains the article's nets. Leave out --epochs.",
    "reproduce --net mine.py": "Without RUN, lamina trains the article's nets. Leave out --net.",
    "reproduce runs/x --seeds 2": ("RUN is runs/x, not the article's nets. Leave out --seeds."),
    "reproduce runs/x --device cpu": ("RUN is runs/x, not the article's nets. Leave out --device."),
    "train cnn:best,lr=0.1 --data shapes": (
        f"There is no net 'cnn:best,lr=0.1' in the zoo. Choose from: {', '.join(zoo.NAMES)}."
        ' Or use layers, such as "Flatten(), Linear(200), ReLU(), Output()", or on the command line'
        " a .py file."
    ),
    "compare cnn:best,lrr=0.1 cnn": (
        "In 'cnn:best,lrr=0.1', lrr is not a setting of a recipe. Did you mean lr?"
    ),
    "reproduce --seeds 0": "--seeds is 0; it must be at least 1. Use --seeds 1.",
}


def test_a_warning_is_one_line_without_a_place_in_the_source(workplace, image_set):
    run = train_once("Flatten(), Output()", image_set, "--epochs", "1")
    for name in ("first", "second"):
        shutil.copytree(run, workplace / "runs" / name)
    with Path("runs/second/history.jsonl").open("a") as opened:
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
        done = run_well(*command)
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


def test_a_summary_shows_the_articles_sizes(capsys):
    assert main(["summary", "cnn"]) == 0
    assert "total\t\t591,914\t10,847,488\t\n" in capsys.readouterr().out
    assert main(["summary", "mlp", "--json"]) == 0
    (summary,) = events(capsys.readouterr().out)
    assert summary["parameters"] == 308_310


@pytest.mark.parametrize(
    "words", [("trian",), ("train", "nothing"), ("train", "--epochs", "x"), ("evaluate", "nothing")]
)
def test_with_json_an_error_is_an_event_too(words, capsys):
    assert main([*words, "--json"]) == 2
    printed = capsys.readouterr()
    (event,) = (json.loads(line) for line in printed.out.splitlines())
    assert printed.err.splitlines()[-1] == f"lamina: {event['error']}"
    assert event["event"] == "error"
    assert event["error"] == f"{event['problem']} {event['remedy']}".rstrip()

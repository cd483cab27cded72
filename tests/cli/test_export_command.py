"""What lamina export refuses, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path

from support.commands import run_lamina


def test_what_cannot_be_exported_or_used_is_said(shapes_run, workplace, image_set):
    image = image_set / "test/dark/0.png"
    Path("net.onnx").write_text("nothing")
    for words, message in (
        (
            ("export", shapes_run, "net.bin"),
            "FILE is net.bin; it must end in .onnx. Use FILE net.onnx.",
        ),
        (
            ("export", shapes_run, "none/net.onnx"),
            (
                "FILE is none/net.onnx, but the folder none does not exist. Create it, or use"
                " another folder."
            ),
        ),
        (
            ("predict", image, image),
            f"No run named {image.name} in {image.parent}. ",
        ),
        (
            ("predict", shapes_run / "report.json", image),
            f"No run named report.json in {shapes_run}. ",
        ),
        (("predict", "net.onnx", image), "No run named net.onnx in this folder "),
    ):
        done = run_lamina(*words)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(f"lamina: {message}")
    assert Path("net.onnx").read_text() == "nothing"


def test_an_earlier_parity_check_stays_if_no_file_can_be_written(shapes_run, workplace):
    Path("net.onnx").mkdir()
    Path("net.onnx.json").write_text("earlier")
    done = run_lamina("export", shapes_run, "net.onnx")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lamina: FILE is net.onnx, which is a folder.")
    assert Path("net.onnx.json").read_text() == "earlier"

"""Checkpoints of each epoch, as the studio keeps them to continue from."""

from __future__ import annotations

import errno
import os

from lamina.runs.kept_checkpoints import keep_checkpoint


def test_checkpoints_are_kept_until_they_take_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("lamina.runs.kept_checkpoints.KEPT_BYTES", 450)
    for epoch in range(6):
        beside = tmp_path / "new"
        beside.write_bytes(bytes([epoch]) * 100)
        beside.rename(tmp_path / "state.safetensors")  # as lamina replaces it
        os.utime(tmp_path / "state.safetensors", ns=(epoch, epoch))
        keep_checkpoint(tmp_path)
        keep_checkpoint(tmp_path)
    kept = sorted((tmp_path / "checkpoints").iterdir(), key=lambda file: int(file.stem))
    assert [file.read_bytes()[0] for file in kept] == [0, 2, 4, 5]
    keep_checkpoint(tmp_path / "none")  # a run without checkpoint
    monkeypatch.setattr("lamina.runs.kept_checkpoints.KEPT_FILES", 3)
    ((tmp_path / "checkpoints") / "notes.txt").touch()
    keep_checkpoint(tmp_path)
    (tmp_path / "state.safetensors").rename(tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "state.safetensors")
    os.utime(tmp_path / "state.safetensors", ns=(9, 9))
    monkeypatch.setattr(os, "link", refuse_link)
    keep_checkpoint(tmp_path)
    kept = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    assert [int(file.stem) for file in kept] == [0, 4, 9]


def refuse_link(*_: object) -> None:
    raise OSError(errno.EPERM, "a file system without links")

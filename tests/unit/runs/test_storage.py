"""Files are whole or not there, and what was changed on the disk is noticed."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import RunError
from lamina.files import (
    RESTORE,
    lock_folder,
    read_bytes,
    remove_leftovers,
    sync_folder,
    write_atomically,
)
from lamina.training.checkpoint import digest_tensors, pack_tensors, unpack_tensors
from support.examples import count_examples

TENSORS = {
    "weight": torch.arange(24, dtype=torch.float32)
    .reshape(2, 3, 2, 2)
    .contiguous(memory_format=torch.channels_last),
    "step": torch.tensor(3.0),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "none": torch.empty(0, 2),
}
PACKED = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
VALUES = {"steps_done": 12, "loss": 0.1 + 0.2, "correct": None}


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], values: dict[str, object]) -> None:
    write_atomically(file, pack_tensors(tensors, values))


def read_tensors(
    file: Path, remedy: str = RESTORE
) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    return unpack_tensors(read_bytes(file), str(file), remedy)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_tensors_and_values_are_read_as_they_were_written(tmp_path):
    tied = TENSORS | {"again": TENSORS["weight"]}
    write_tensors(tmp_path / "file", tied, VALUES)
    tensors, values = read_tensors(tmp_path / "file")
    assert same(tensors, tied)
    assert values == VALUES
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_digest_covers_bits_names_types_and_shapes():
    same_values = {name: tensor.contiguous() for name, tensor in reversed(TENSORS.items())}
    assert digest_tensors(same_values) == digest_tensors(TENSORS)
    weight = torch.zeros(2, 2)
    different = [
        {"weight": weight},
        {"other": weight},
        {"weight": weight.reshape(4)},
        {"weight": weight.double()},
        {"weight": -weight},
        {"weight": weight.int()},
        {},
    ]
    assert len({digest_tensors(tensors) for tensors in different}) == len(different)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, bytes]:
    file = tmp_path_factory.mktemp("storage") / "state.safetensors"
    write_tensors(file, TENSORS, VALUES)
    return file, file.read_bytes()


@settings(
    max_examples=count_examples(400),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_flipped_bit_is_noticed_or_changes_nothing(written, data):
    file, content = written
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(damaged)
    try:
        tensors, values = read_tensors(file)
    except RunError as error:
        assert str(error).startswith(f"{file} is damaged: ")
        return
    assert same(tensors, TENSORS)
    assert values == VALUES


def test_a_file_cut_short_anywhere_is_rejected(written):
    file, content = written
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(
            RunError, match=f"^{re.escape(str(file))} is damaged: .*, or train again.$"
        ):
            read_tensors(file)


def test_other_content_under_the_same_digest_is_rejected(tmp_path):
    file = tmp_path / "file"
    write_tensors(file, TENSORS, VALUES)
    other = json.dumps(VALUES | {"steps_done": 13})
    digest = re.search(rb'digest\\": \\"(\w+)', file.read_bytes())[1].decode()
    for printed in ({"values": other, "digest": digest}, {"values": other}, {"digest": digest}):
        file.write_bytes(safetensors.torch.save(PACKED, {"lamina": json.dumps(printed)}))
        with pytest.raises(RunError) as rejected:
            read_tensors(file, "Do this.")
        assert str(rejected.value) == (
            f"{file} is damaged: its digest does not match its content. Do this."
        )


def test_the_same_content_is_the_same_file_to_the_byte(tmp_path):
    for name in ("first", "second"):
        write_tensors(tmp_path / name, TENSORS, VALUES)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_weights_of_an_older_lamina_without_a_digest_are_read(tmp_path):
    (tmp_path / "file").write_bytes(safetensors.torch.save(PACKED))
    tensors, values = read_tensors(tmp_path / "file")
    assert same(tensors, TENSORS)
    assert values == {}


def test_only_what_writers_leave_beside_their_files_is_removed(tmp_path):
    kept = [".lock", "state.safetensors", ".notes", ".state.safetensors.txt"]
    two_days_ago = time.time() - 2 * 86_400
    for name in [*kept, ".state.safetensors.0a1b2c3d", ".run.json.ffffffff"]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (two_days_ago, two_days_ago))
    (tmp_path / ".p.csv.0a1b2c3d").touch()  # a command may be writing it now
    (tmp_path / ".model.safetensors.0a1b2c3d").touch()  # only the holder of the lock writes it
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, ".p.csv.0a1b2c3d"])  # noqa: PTH208


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_folder_that_cannot_be_synced_is_no_error():
    sync_folder(Path("/proc"))


def test_a_run_with_a_link_is_locked(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "figures").symlink_to(tmp_path / "elsewhere")
    with lock_folder(tmp_path):
        pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "file"
    write_atomically(file, "naïve")
    assert file.read_bytes() == "naïve".encode()
    write_atomically(file, b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\udc80")
    assert file.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]

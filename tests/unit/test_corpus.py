"""Files that caused trouble, or might: each is loaded, or refused with a message, nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.decoding import BadImageError, decode_image
from lamina.data.sources.cifar import read_pickle
from lamina.errors import DataError, LaminaError, NetError, RunError
from lamina.nets import parse_net
from lamina.runs.loading import load_run
from lamina.runs.record import Machine, RunRecord
from lamina.values import from_json_values
from support.examples import count_examples
from support.runs import start

CORPUS = Path(__file__).parent / "corpus"
TEMPORARY = tempfile.TemporaryDirectory()


def make_run() -> Path:
    run, training = start(Path(TEMPORARY.name))
    run.folder.save_model(training.model)
    return run.path


RUN = make_run()


def files(kind: str) -> list[Any]:
    return [pytest.param(file, id=file.name) for file in sorted((CORPUS / kind).iterdir())]


@pytest.mark.parametrize("file", files("expressions"))
def test_an_expression_is_a_net_or_refused(file):
    try:
        net = parse_net(file.read_bytes().decode("utf-8", "surrogatepass"))
    except NetError:
        return
    assert parse_net(repr(net)) == net


@pytest.mark.parametrize("file", files("run_json"))
def test_a_run_json_is_refused_by_its_name(file, tmp_path):
    shutil.copy(file, tmp_path / "run.json")
    with pytest.raises(RunError, match=r"run\.json "):
        load_run(tmp_path)


@pytest.mark.parametrize("file", files("images"))
def test_an_image_is_refused(file):
    with pytest.raises(BadImageError):
        decode_image(file.read_bytes(), (8, 8))


@pytest.mark.parametrize(
    ("name", "reason"), [("huge-claim.png", "more than 67"), ("over-limit.png", "more than 67")]
)
def test_an_image_over_the_limit_is_refused_by_its_header_before_its_pixels_are_looked_at(
    name, reason
):
    with pytest.raises(BadImageError, match=reason):  # and not that it is cut short, as it is
        decode_image((CORPUS / "images" / name).read_bytes())


@pytest.mark.parametrize("file", files("pickles"))
def test_a_pickle_is_plain_values_or_refused(file):
    try:
        content = read_pickle(file.read_bytes(), file.name)
    except DataError:
        assert file.name != "plain"
        return
    assert all(isinstance(name, str) for name in content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
RECORD = json.loads((RUN / "run.json").read_text())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside one."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@pytest.mark.slow
@settings(max_examples=count_examples(100), deadline=None)
@given(place=st.sampled_from(places(RECORD)[1:]), value=json_values)
def test_a_run_json_with_any_value_anywhere_is_read_or_refused_by_its_name(
    tmp_path_factory, place, value
):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-run"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(put(RECORD, place, value)))
    shutil.copy(RUN / "model.safetensors", folder)
    try:
        run = load_run(folder)
        assert isinstance(run.record, RunRecord)
        run.load_model()
    except RunError as error:
        assert str(folder) in str(error)


@settings(max_examples=count_examples(60), deadline=None)
@given(data=st.data())
def test_a_run_json_with_flipped_bytes_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "flipped-run"
    folder.mkdir(exist_ok=True)
    content = bytearray((RUN / "run.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "run.json").write_bytes(content)
    try:
        load_run(folder)
    except RunError as error:
        assert str(folder) in str(error)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One of every kind of field that plain values are read into."""

    text: str
    count: int
    share: float
    flag: bool
    maybe: Machine | None
    many: tuple[float, ...]
    named: dict[str, int]


@settings(max_examples=count_examples(100), deadline=None)
@given(
    values=st.fixed_dictionaries({field.name: json_values for field in dataclasses.fields(Sample)})
    | json_values
)
def test_plain_values_become_what_the_fields_say_or_are_refused(values):
    try:
        found = from_json_values(Sample, values, "sample")
    except ValueError as error:
        assert str(error).startswith("sample")
        return
    assert type(found.text) is str
    assert type(found.count) is int
    assert type(found.share) is float
    assert type(found.flag) is bool
    assert all(type(item) is float for item in found.many)
    assert all(type(item) is int for item in found.named.values())


@settings(max_examples=count_examples(100), deadline=None)
@given(line=json_values | st.text(max_size=20))
def test_any_line_of_a_history_is_read_or_refused_by_its_name(tmp_path_factory, line):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-history"
    if not folder.exists():
        shutil.copytree(RUN, folder)
    text = line if isinstance(line, str) else json.dumps(line)
    (folder / "history.jsonl").write_bytes(text.encode("utf-8", "surrogatepass") + b"\n")
    run = load_run(folder)
    try:
        run.folder.history.epochs()
        run.folder.history.trim(1, 0)
    except LaminaError as error:
        assert str(folder / "history.jsonl") in str(error)


@settings(max_examples=count_examples(150), deadline=None)
@given(
    data=st.binary(max_size=200),
    head=st.sampled_from(
        [
            b"",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"GIF89a",
            b"BM",
            b"II*\0",
            b"RIFF\x10\0\0\0WEBP",
        ]
    ),
)
def test_any_bytes_after_an_images_first_are_an_image_or_refused(data, head):
    try:
        assert decode_image(head + data, (4, 4)).dtype == np.uint8
    except BadImageError as error:
        assert len(str(error)) < 200

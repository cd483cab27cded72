"""Files that caused trouble, or might: each is loaded, or refused with a message, nothing else."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.decoding import BadImageError, decode_image
from lamina.errors import NetError, RunError
from lamina.nets import parse_net
from lamina.runs.record import Machine
from lamina.runs.run import load_run
from lamina.values import from_json_values
from support.examples import count_examples

CORPUS = Path(__file__).parent / "corpus"


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
def test_an_image_over_the_limit_is_refused_by_its_header(name, reason):
    with pytest.raises(BadImageError, match=reason):  # and not that it is cut short, as it is
        decode_image((CORPUS / "images" / name).read_bytes())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


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

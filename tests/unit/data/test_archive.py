"""An archive can't make lamina write outside its cache, follow a link or fill the disk."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Preparation, load_data
from lamina.data.images import Problem
from lamina.data.sources.archive import unpack
from lamina.errors import DataError, LaminaWarning
from support.image_sources import write_tar, write_zip
from support.images import encode

REMEDY = "An archive must contain only regular files in one folder; create it again."
TRUST = "If you trust the archive, unpack it and use the folder."
HOSTILE: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "zip, absolute": (
        "a.zip",
        lambda path: write_zip(path, "/etc/1.png"),
        "'/etc/1.png' has an absolute path",
    ),
    "zip, backslash": (
        "a.zip",
        lambda path: write_zip(path, "\\etc\\1.png"),
        "'\\\\etc\\\\1.png' has an absolute path",
    ),
    "zip, parent": (
        "a.zip",
        lambda path: write_zip(path, "a/../../1.png"),
        "'a/../../1.png' has '..' in its path",
    ),
    "zip, windows parent": (
        "a.zip",
        lambda path: write_zip(path, "a\\..\\1.png"),
        "'a\\\\..\\\\1.png' has '..' in its path",
    ),
    "zip, parent before a NUL": (
        "a.zip",
        lambda path: write_zip(path, "a/..\0.png"),
        "'a/..\\x00.png' has a NUL in its path",
    ),
    "zip, drive": (
        "a.zip",
        lambda path: write_zip(path, "C:/1.png"),
        "'C:/1.png' has a drive letter in its path",
    ),
    "zip, link": (
        "a.zip",
        lambda path: write_zip(path, "a/1.png", b"/etc/passwd", stat.S_IFLNK | 0o777),
        "'a/1.png' is a link, a device or a sparse file",
    ),
    "zip, bomb": (
        "a.zip",
        lambda path: write_zip(path, "a/1.bmp", bytes(2**24)),
        "'a/1.bmp' brings the archive over a compression of 200:1",
    ),
    "tar, absolute": (
        "a.tar.gz",
        lambda path: write_tar(path, "/etc/1.png"),
        "'/etc/1.png' has an absolute path",
    ),
    "tar, parent": (
        "a.tar.gz",
        lambda path: write_tar(path, "../1.png"),
        "'../1.png' has '..' in its path",
    ),
    "tar, soft link": (
        "a.tar.gz",
        lambda path: write_tar(path, "a/1.png", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        "'a/1.png' is a link, a device or a sparse file",
    ),
    "tar, hard link": (
        "a.tar.gz",
        lambda path: write_tar(path, "a/1.png", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        "'a/1.png' is a link, a device or a sparse file",
    ),
    "tar, device": (
        "a.tar.gz",
        lambda path: write_tar(path, "a/1.png", kind=tarfile.CHRTYPE),
        "'a/1.png' is a link, a device or a sparse file",
    ),
    "tar, pipe": (
        "a.tar.gz",
        lambda path: write_tar(path, "a/1.png", kind=tarfile.FIFOTYPE),
        "'a/1.png' is a link, a device or a sparse file",
    ),
    "tar, bomb": (
        "a.tar.gz",
        lambda path: write_tar(path, "a/1.bmp", bytes(2**24)),
        "'a/1.bmp' brings the archive over a compression of 200:1",
    ),
}


def ignore(_done: int, _total: int) -> None:
    pass


def read_files(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_archive_is_rejected_and_nothing_is_written(
    attack: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.data.sources.archive.ARRAY_FLOOR_BYTES", 2**20)
    name, write, fault = HOSTILE[attack]
    archive = write(tmp_path / name)
    with pytest.raises(DataError) as raised:
        load_data(archive)
    remedy = TRUST if "bomb" in attack else REMEDY
    assert str(raised.value) == f"{archive} is rejected: its member {fault}. {remedy}"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(path.name for path in cache.iterdir()) == ["locks"]


@pytest.mark.parametrize(
    ("limit", "value", "fault"),
    [
        ("MEMBER_BYTES", 100, "'train/cat/0000.png' is larger than 100 bytes"),
        ("TOTAL_BYTES", 500, "'train/cat/0001.png' brings the archive over 500 bytes unpacked"),
    ],
)
def test_each_limit_holds_for_both_kinds(
    limit, value, fault, image_set, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(f"lamina.data.sources.archive.{limit}", value)
    for path in (
        image_set.write_zip(tmp_path / "a.zip"),
        image_set.write_tar(tmp_path / "a.tar"),
    ):
        with pytest.raises(DataError) as raised:
            unpack(path, tmp_path / f"unpacked-{path.suffix}", ignore)
        assert fault in str(raised.value)


def test_more_members_than_the_limit_are_rejected(image_set, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lamina.data.sources.archive.MOST_MEMBERS", 21)
    unpack(image_set.write_zip(tmp_path / "a.zip"), tmp_path / "1", ignore)
    assert len(read_files(tmp_path / "1")) == 21
    monkeypatch.setattr("lamina.data.sources.archive.MOST_MEMBERS", 20)
    with pytest.raises(DataError) as raised:
        unpack(tmp_path / "a.zip", tmp_path / "2", ignore)
    expected = (
        f"{tmp_path / 'a.zip'} is rejected: it has more than 20 members. Unpack it and use the"
        " folder."
    )
    assert str(raised.value) == expected
    with pytest.raises(
        DataError, match=r"its member 'test/owl/0001\.png' exceeds the limit of 20 members"
    ):
        unpack(image_set.write_tar(tmp_path / "a.tar"), tmp_path / "3", ignore)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_that_does_not_fit_on_the_disk_is_rejected(
    name: str, image_set, tmp_path: Path, monkeypatch
) -> None:
    usage = type(shutil.disk_usage("."))(10_000, 9000, 1000)
    monkeypatch.setattr("lamina.data.sources.archive.shutil.disk_usage", lambda _: usage)
    write = image_set.write_zip if name == "a.zip" else image_set.write_tar
    path = write(tmp_path / name)
    with pytest.raises(DataError) as raised:
        load_data(path)
    assert str(raised.value).startswith(f"Unpacking {path} needs 0.00")
    assert " MB or more, but the disk has 0.001 MB free. Free some space" in str(raised.value)


def write_directory(path: Path, members: int, claimed: int) -> Path:
    """A zip of empty members, which claims another number of them."""
    entry = (
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
        + b"a"
    )
    directory = entry * members
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    sizes = (claimed, claimed, len(directory), len(local))
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *sizes)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(local) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(local + directory + end64 + locator + end)
    return path


def test_the_directory_that_is_made_up_is_one_that_zipfile_reads(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_directory(tmp_path / "a.zip", 3, 3)) as archive:
        assert archive.namelist() == ["a", "a", "a"]


@pytest.mark.parametrize("claimed", [200_000, 1])
def test_too_many_members_are_rejected_before_they_become_objects(
    claimed: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("lamina.data.sources.archive.MOST_MEMBERS", 150_000)
    path = write_directory(tmp_path / "a.zip", 200_000, claimed)
    tracemalloc.start()
    with pytest.raises(DataError) as raised:
        load_data(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than 150000 members" in str(raised.value)
    assert peak_bytes < 2 * path.stat().st_size


def test_a_directory_of_gigabytes_is_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lamina.data.sources.archive.DIRECTORY_BYTES", 4699)
    path = write_directory(tmp_path / "a.zip", 100, 100)
    with pytest.raises(DataError) as raised:
        unpack(path, tmp_path / "unpacked", ignore)
    assert (
        str(raised.value)
        == f"{path} is rejected: its directory has 4700 bytes. Unpack it and use the folder."
    )


def test_the_last_of_two_members_of_one_name_in_a_tar_counts(tmp_path: Path) -> None:
    path = tmp_path / "twice.tar"
    with tarfile.open(path, "w") as archive:
        for name, color in [
            ("cat/a.png", 1),
            ("cat/a.png", 2),
            ("dog/b.png", 3),
            ("cat/c.png", 4),
            ("dog/d.png", 5),
        ]:
            data = encode(Image.new("RGB", (4, 4), (color, 0, 0)))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    train = load_data(path, Preparation(test_fraction=0.0)).train
    reds = dict(zip(train.names, train.pixels[:, 0, 0, 0].tolist(), strict=True))
    assert reds == {"cat/a.png": 2, "cat/c.png": 4, "dog/b.png": 3, "dog/d.png": 5}


def test_an_encrypted_zip_says_what_to_do(image_set, tmp_path: Path) -> None:
    path = image_set.write_zip(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError) as raised:
        load_data(path)
    assert (
        str(raised.value) == f"{path} is encrypted. Unpack it with its password and use the folder."
    )


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_damaged_archive_says_so(name: str, image_set, tmp_path: Path) -> None:
    path = tmp_path / name
    (image_set.write_zip if name.endswith("zip") else image_set.write_tar)(path)
    data = path.read_bytes()
    directory_damaged, cut_off = (
        data.replace(b"PK\x01\x02", b"PK\x01\x00", 1),
        data[: len(data) // 2 + 100],
    )
    path.write_bytes(directory_damaged if name == "a.zip" else cut_off)
    with pytest.raises(DataError, match=r"Cannot read .*\. Create or download it again\."):
        load_data(path)


def test_names_that_are_not_utf8_go_all_the_way(image_set, tmp_path: Path) -> None:
    """A tar's names are bytes; a zip without the UTF-8 flag has names in code page 437."""
    data = image_set.encoded["train/cat/0000.png"]
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as archive:
        for name in ("café/1.png", "café/2.png", "tea/1.png", "tea/2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    content = make_zip([zipfile.ZIP_STORED], [data, data]).replace("ä".encode(), b"\xe4\x84")
    for before, flags in (
        (b"PK\x01\x02\x14\x03\x14\x00", b"\x00\x08"),
        (b"PK\x03\x04\x14\x00", b"\x00\x08"),
    ):
        content = content.replace(before + flags, before + b"\x00\x00")  # without the mark
    (tmp_path / "a.zip").write_bytes(content)

    whole = Preparation(test_fraction=0.0, val_fraction=0.0)
    loaded = load_data(tmp_path / "a.tar", whole)
    assert loaded.train.target_names == ("caf\\udce9", "tea")
    assert (loaded.train.pixels[0] == image_set.pixels["train/cat/0000.png"]).all()
    assert load_data(tmp_path / "a.tar", whole).train.names == loaded.train.names
    unpack(tmp_path / "a.zip", tmp_path / "unpacked", ignore)
    assert read_files(tmp_path / "unpacked") == {"a/Σä0.png": data, "a/Σä1.png": data}


def test_a_zip_with_a_name_that_is_no_utf8_is_damaged(image_set, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(make_zip([zipfile.ZIP_STORED], [b"image"]).replace("ä".encode(), b"\xe4\x84"))
    with pytest.raises(
        DataError, match=r"Cannot read .*: 'utf-8' codec .*\. Create or download it again\."
    ):
        load_data(path)


def test_a_member_damaged_inside_a_zip_is_one_problem(image_set, tmp_path: Path) -> None:
    path = image_set.write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("train/dog/0001.png")
    data = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    data[start + 20 : start + 30] = bytes(10)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="Left out 1 image: train/dog/0001.png"):
        loaded = load_data(path)
    assert loaded.train.target_counts() == {"cat": 4, "dog": 3, "owl": 4}


def make_zip(
    methods: list[int], contents: list[bytes], before: bytes = b"", streamed: bool = False
) -> bytes:
    """A zip of one image name for each content; methods alternate; streamed sizes come last."""

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    buffer = Unseekable() if streamed else io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for place, data in enumerate(contents):
            archive.writestr(f"a/ä{place}.png", data, methods[place % len(methods)])
    return before + buffer.getvalue()


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@given(
    methods=st.lists(st.sampled_from(METHODS), min_size=1, max_size=4),
    contents=st.lists(st.binary(max_size=300), max_size=5),
    before=st.binary(max_size=30),
    streamed=st.booleans(),
)
def test_members_are_unpacked_whatever_their_compression(
    methods, contents, before, streamed, tmp_path_factory
) -> None:
    path = tmp_path_factory.getbasetemp() / "members.zip"
    path.write_bytes(make_zip(methods, contents, before, streamed))
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    assert unpack(path, folder, ignore) == []
    assert read_files(folder) == {f"a/ä{place}.png": data for place, data in enumerate(contents)}


def test_no_more_is_unpacked_than_the_directory_says(tmp_path: Path) -> None:
    content = bytes(2**24)
    data = bytearray(make_zip([zipfile.ZIP_DEFLATED], [content]))
    first = data.index(b"PK\x01\x02")
    data[first + 24 : first + 28] = struct.pack("<I", 1000)
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    tracemalloc.start()
    (problem,) = unpack(path, tmp_path / "unpacked", ignore)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20
    assert problem.path == "a/ä0.png"
    assert problem.reason.startswith("damaged in the archive: Bad CRC-32")
    assert read_files(tmp_path / "unpacked") == {}


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no archive")
    with pytest.raises(DataError) as raised:
        load_data(path)
    assert str(raised.value) == (
        f"lamina cannot load {path}. Expected the folder of the official CIFAR files,"
        " a NumPy .npz, IDX files (MNIST's), a table (CSV, TSV, Parquet, JSON lines) or a"
        " folder of tables, a folder of class folders, or a zip or tar of one of these. Use one of"
        " them, or one of cifar10, cifar100, mnist, fashion-mnist, shapes, shapes-attributes,"
        " shapes-pose."
    )


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_with_an_endless_name_is_rejected_before_it_is_read(
    kind: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar.gz"
    size = 100 * 2**20
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, size
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.tobuf())
        for _ in range(size // 2**20):
            file.write(b"a" * 2**20)
    tracemalloc.start()
    with pytest.raises(
        DataError, match=r"it has a header of 104857600 bytes; at most 65536 are allowed"
    ):
        unpack(path, tmp_path / "unpacked", ignore)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


class _PlainInfo(zipfile.ZipInfo):
    """A member as zip on Linux writes it: with a name in UTF-8, but without the flag for it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(), self.flag_bits & ~0x800


def test_names_in_a_zip_are_utf8_without_its_flag_too(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/Grün.png", "b/猫.png"):
            archive.writestr(_PlainInfo(name), b"x")
    with zipfile.ZipFile(path) as archive:
        assert "b/猫.png" not in archive.namelist()
    unpack(path, tmp_path / "unpacked", ignore)
    assert read_files(tmp_path / "unpacked") == {"a/Grün.png": b"x", "b/猫.png": b"x"}


DEEP = "/".join("a" * 200) + "/1.png"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"train/cat/{'a' * 300}.png", "file name too long"),
        (DEEP, "in more than 100 folders"),
        ("train/cat/0000.png/1.png", "another file has taken its name"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_the_disk_cannot_hold_is_a_problem(
    kind: str, name: str, reason: str, image_set, tmp_path: Path
) -> None:
    pixels = image_set.pixels["train/cat/0000.png"]
    longer = type(image_set)({**image_set.pixels, name: pixels})
    path = tmp_path / f"a.{kind}"
    (longer.write_zip if kind == "zip" else longer.write_tar)(path)
    with pytest.warns(LaminaWarning, match="Left out 1 image"):
        data = load_data(path)
    assert len(data.train) == 12
    assert data.problems == (Problem(name, reason),)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("fault", [None, DataError, KeyboardInterrupt])
def test_nothing_that_was_unpacked_stays(
    kind: str, fault: type[BaseException] | None, image_set, tmp_path, cache, monkeypatch
) -> None:
    path = tmp_path / f"a.{kind}"
    (image_set.write_zip if kind == "zip" else image_set.write_tar)(path)
    unpacked: list[Path] = []

    def show(done: int, total: int) -> None:
        unpacked.extend(cache.rglob("unpacked"))
        if fault is not None:
            raise fault("during decoding")

    with nullcontext() if fault is None else pytest.raises(fault):
        load_data(path, progress=show)
    assert len(unpacked) == 1
    assert not list(cache.rglob("unpacked"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_slow_unpacking_shows_its_progress(kind, image_set, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / f"a.{kind}"
    (image_set.write_zip if kind == "zip" else image_set.write_tar)(path)
    shown: list[tuple[int, int]] = []
    unpack(path, tmp_path / "quick", lambda *pair: shown.append(pair))
    assert shown == []
    monkeypatch.setattr("lamina.data.sources.archive.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("lamina.data.sources.archive.SHOWN_SECONDS", 0.0)
    unpack(path, tmp_path / "slow", lambda *pair: shown.append(pair))
    size_bytes = path.stat().st_size
    assert len(shown) == 21
    assert shown == sorted(shown)
    assert all(0 < done <= total == size_bytes for done, total in shown)


def test_unused_files_of_an_archive_are_problems(image_set, tmp_path: Path) -> None:
    folder = image_set.write_folder(tmp_path / "a")
    (folder / "train" / "cat" / "notes.txt").write_text("notes")
    (folder / "train" / "ant").mkdir()
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", folder))
    assert load_data(path).problems == load_data(folder).problems
    assert len(load_data(path).problems) == 2

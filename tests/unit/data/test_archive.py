"""An archive can't make lamina write outside its cache, follow a link or fill the disk."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina.data import Preparation, load_data
from lamina.data.load import SOURCE_KINDS
from lamina.data.sources.archive import unpack
from lamina.errors import DataError
from support.image_sources import write_tar, write_zip
from support.images import encode

Write = Callable[[Path], Path]
HOSTILE: dict[str, Write] = {
    "tar, parent": lambda folder: write_tar(folder / "a.tar.gz", "../1.png"),
    "tar, soft link": lambda folder: write_tar(
        folder / "a.tar.gz", "a/1.png", kind=tarfile.SYMTYPE, link="/etc/passwd"
    ),
    "tar, hard link": lambda folder: write_tar(
        folder / "a.tar.gz", "a/1.png", kind=tarfile.LNKTYPE, link="/etc/passwd"
    ),
    "tar, device": lambda folder: write_tar(folder / "a.tar.gz", "a/1.png", kind=tarfile.CHRTYPE),
    "tar, pipe": lambda folder: write_tar(folder / "a.tar.gz", "a/1.png", kind=tarfile.FIFOTYPE),
    "tar, bomb": lambda folder: write_tar(folder / "a.tar.gz", "a/1.bmp", bytes(2**24)),
    "zip, bomb": lambda folder: write_zip(folder / "a.zip", "a/1.bmp", bytes(2**24)),
}
HARMLESS: dict[str, tuple[Write, str]] = {
    "tar, absolute": (
        lambda folder: write_tar(folder / "a.tar.gz", "/etc/1.png"),
        "etc/1.png",
    ),
    "zip, absolute": (lambda folder: write_zip(folder / "a.zip", "/etc/1.png"), "etc/1.png"),
    "zip, backslash": (lambda folder: write_zip(folder / "a.zip", "\\etc\\1.png"), "etc/1.png"),
    "zip, parent": (lambda folder: write_zip(folder / "a.zip", "a/../../1.png"), "a/1.png"),
    "zip, windows parent": (
        lambda folder: write_zip(folder / "a.zip", "a\\..\\1.png"),
        "a/1.png",
    ),
    "zip, link": (
        lambda folder: write_zip(folder / "a.zip", "a/1.png", b"/etc/passwd", stat.S_IFLNK | 0o777),
        "a/1.png",
    ),
}


def read_files(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_archive_is_rejected_and_nothing_is_written(
    attack: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.data.sources.archive.FLOOR_BYTES", 2**20)
    archive = HOSTILE[attack](tmp_path)
    with pytest.raises(DataError) as raised:
        load_data(archive)
    start = f"{archive} is rejected: its files" if "bomb" in attack else f"Cannot read {archive}: "
    assert str(raised.value).startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]
    assert sorted(path.name for path in cache.iterdir()) == ["locks"]


@pytest.mark.parametrize("attack", HARMLESS)
def test_no_member_is_written_outside_the_folder(attack: str, tmp_path: Path) -> None:
    write, name = HARMLESS[attack]
    archive = write(tmp_path)
    unpack(archive, tmp_path / "unpacked")
    assert list(read_files(tmp_path / "unpacked")) == [name]
    assert not (tmp_path / "unpacked" / name).is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "unpacked"]


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
    assert str(raised.value).startswith(f"{path} is rejected: its files do not fit on the disk")


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
    assert "is encrypted, password required for extraction" in str(raised.value)


@pytest.mark.parametrize("name", ["a.zip", "cut.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_damaged_archive_says_so(name: str, image_set, tmp_path: Path) -> None:
    path = tmp_path / name
    (image_set.write_zip if name.endswith("zip") else image_set.write_tar)(path)
    data = path.read_bytes()
    damaged = data[: len(data) // 2 + 100]
    if name == "a.zip":
        damaged = data.replace(b"PK\x01\x02", b"PK\x01\x00", 1)
    path.write_bytes(damaged)
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
    unpack(tmp_path / "a.zip", tmp_path / "unpacked")
    assert read_files(tmp_path / "unpacked") == {"a/Σä0.png": data, "a/Σä1.png": data}


def test_a_zip_with_a_name_that_is_no_utf8_is_damaged(image_set, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(make_zip([zipfile.ZIP_STORED], [b"image"]).replace("ä".encode(), b"\xe4\x84"))
    with pytest.raises(
        DataError, match=r"Cannot read .*: 'utf-8' codec .*\. Create or download it again\."
    ):
        load_data(path)


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
    unpack(path, folder)
    assert read_files(folder) == {f"a/ä{place}.png": data for place, data in enumerate(contents)}


@pytest.mark.parametrize("name", ["notes.txt", "table.xlsx"])
def test_a_file_that_is_no_archive_of_images_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    if name == "notes.txt":
        path.write_text("no archive")
    with pytest.raises(DataError) as raised:
        load_data(path)
    assert str(raised.value) == (
        f"lamina cannot load {path}. Expected {', '.join(SOURCE_KINDS)}, or a"
        " zip or tar of one of these. Use one of them, or one of cifar10, cifar100, mnist,"
        " fashion-mnist, shapes, shapes-attributes, shapes-pose."
    )


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
    unpack(path, tmp_path / "unpacked")
    assert read_files(tmp_path / "unpacked") == {"a/Grün.png": b"x", "b/猫.png": b"x"}


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
    assert unpacked
    assert not list(cache.rglob("unpacked"))


def test_unused_files_of_an_archive_are_problems(image_set, tmp_path: Path) -> None:
    folder = image_set.write_folder(tmp_path / "a")
    (folder / "train" / "cat" / "notes.txt").write_text("notes")
    (folder / "train" / "ant").mkdir()
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", folder))
    assert load_data(path).problems == load_data(folder).problems
    assert len(load_data(path).problems) == 2

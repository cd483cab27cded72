"""Links of pages to files outside ``docs``: they lead to copies in the site.

Pages are also read on a code host, so they link to the files themselves. A Markdown file becomes a
page in ``docs/repository``; any other file becomes a download.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

COPIES = "repository"
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/**/*.md")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def setup(app: Any) -> None:
    app.connect("builder-inited", write_copies)
    app.connect("source-read", rewrite_page)


def write_copies(app: Any) -> None:
    """Write the files outside ``docs`` that are pages of the site."""
    docs = Path(app.srcdir)
    for pattern in FILES:
        for file in sorted(docs.parent.glob(pattern)):
            copy = to_copy(file, docs)
            text = rewrite(file.read_text(encoding="utf-8"), file, copy, docs)
            write_if_changed(copy, f"---\norphan: true\n---\n\n{text}")


def rewrite_page(app: Any, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    docs = Path(app.srcdir)
    if page.suffix == ".md" and COPIES not in page.relative_to(docs).parts:
        source[0] = rewrite(source[0], page, page, docs)


def rewrite(text: str, page: Path, place: Path, docs: Path) -> str:
    """The text of ``page`` with its relative links as seen from ``place``."""

    def change(match: re.Match[str]) -> str:
        mark, words, link = match.groups()
        path, hash_sign, anchor = link.partition("#")
        if not path or re.match(r"\w+:", path):
            return match[0]
        target = (page.parent / path).resolve()
        if target.is_dir():
            return words
        if target.suffix == ".md" and docs not in target.parents:
            target = to_copy(target, docs)
        elif place == page:
            return match[0]
        link = Path(os.path.relpath(target, place.parent)).as_posix()
        return f"{mark}[{words}]({link}{hash_sign}{anchor})"

    return LINK.sub(change, text)


def to_copy(file: Path, docs: Path) -> Path:
    return docs / COPIES / file.relative_to(docs.parent)


def write_if_changed(file: Path, text: str) -> None:
    """Write a file unless it has this content, so that Sphinx reads only changed pages again."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")

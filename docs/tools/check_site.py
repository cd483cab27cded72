"""Check a built site: local links lead somewhere, and no page loads anything from another host.

python docs/tools/check_site.py build/docs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    ("img", "src"),
    ("script", "src"),
    ("link", "href"),
    ("source", "src"),
    ("video", "src"),
    ("iframe", "src"),
}
NOT_LOADED = ("canonical", "author", "help", "index", "search", "next", "prev")
"""``rel`` of links that a browser does not load by itself."""
OTHER_HOST = re.compile(r"url\(['\"]?((?:\w+:)?//[^)'\"]*)")


class Page(HTMLParser):
    """The anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "top"}
        self.links: list[tuple[str, bool]] = []  # the address, and whether it is loaded
        self.problems: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values.get("id", ""), values.get("name", "")}
        if tag == "img" and "alt" not in values:
            self.problems.append(f"an image without a text: {values.get('src')}")
        for name in ("href", "src"):
            if name in values:
                is_loaded = (tag, name) in LOADED and values.get("rel") not in NOT_LOADED
                self.links.append((values[name], is_loaded))


def check(site: Path) -> Iterator[str]:
    files = [file for file in site.rglob("*.html") if "_static" not in file.parts]
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in files}
    for file, page in pages.items():
        where = file.relative_to(site.resolve())
        for problem in page.problems:
            yield f"{where}: {problem}"
        for link, is_loaded in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if is_loaded and parts.scheme != "data":
                    yield f"{where}: loads {link}"
                continue
            target = file
            if parts.path:
                target = (file.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                yield f"{where}: {link} does not exist"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where}: {link} has no such anchor"
    for style in site.rglob("*.css"):
        for link in OTHER_HOST.findall(style.read_text(encoding="utf-8")):
            yield f"{style.relative_to(site)}: loads {link}"


def main() -> None:
    problems = sorted(set(check(Path(sys.argv[1]))))
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(f"{len(problems)} problems in the site")


if __name__ == "__main__":
    main()

"""A self-contained HTML document.

Its Content-Security-Policy allows only its own style sheet and embedded images.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files

from lamina.markup import Markup, join, link, list_shades, show, wrap


def document_of(
    title: str, header: Iterable[str], sections: Mapping[str, tuple[str, Markup]], kind: str = ""
) -> str:
    """A document of sections by id, each with its title; empty sections are left out."""
    links = []
    parts = []
    for name, (heading, body) in sections.items():
        if body:
            links.append(link(heading, name))
            parts.append(wrap("section", wrap("h2", heading), body, name=name))
    return document(
        title, wrap("header", *header), wrap("nav", *links), wrap("main", *parts, kind=kind)
    )


def document(title: str, *parts: str) -> str:
    style = files("lamina.deploy").joinpath("report.css").read_text("utf-8") + list_shades()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{show(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"{join(parts)}\n</body>\n</html>\n"
    )

"""The templates of reports, which escape all text: names of others are never markup."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from lamina.markup import Markup, chart, image, list_shades, matrix, show, table
from lamina.text import shorten


@cache
def open_templates(escape: Callable[[str], str]) -> Environment:
    """The templates, with a function that escapes each text, except for ``Markup``."""

    def finalize(value: object) -> str:
        return escape(value if isinstance(value, str) else str(value))

    return Environment(
        loader=PackageLoader("lamina.deploy"),
        autoescape=select_autoescape(),  # of HTML; finalize escapes control characters, too
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(name: str, values: dict[str, Any]) -> str:
    """A self-contained HTML page.

    Its Content-Security-Policy allows only its own style sheet and embedded images.
    """
    style = files("lamina.deploy").joinpath("report.css").read_text("utf-8") + list_shades()
    more = {
        "style": Markup(style),
        "digest": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "table": table,
        "matrix": matrix,
        "chart": chart,
        "image": image,
        "shorten": shorten,
    }
    return open_templates(show).get_template(name).render(values | more)

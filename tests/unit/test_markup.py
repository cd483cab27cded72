"""HTML from texts, which are escaped, and from elements, which are not."""

from __future__ import annotations

from lamina.markup import show, wrap


def test_texts_are_escaped_once() -> None:
    assert show("<b> & co") == "&lt;b&gt; &amp; co"
    assert show(wrap("b", "&")) == "<b>&amp;</b>"

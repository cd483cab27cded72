"""The password of a database is in no file and no output."""

from __future__ import annotations

import contextlib
import io
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from lamina.cli.terminal import Terminal
from lamina.errors import RunError
from lamina.studies.trials import explain, open_database
from lamina.text import hide_password
from support.examples import count_examples

SECRET = "S3cret"
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("--storage=postgresql://me:a/b@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://me@server:S3cret@host/db", "postgresql://me@server:***@host/db"),
        ("postgresql://me:S3 cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=a&password=b&x=1", "postgresql://host/db"),
        ("postgresql://host/db?sslpassword=b", "postgresql://host/db"),
        ("postgresql://me:S3@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:S3cret@host:port/db", "postgresql://me:***@host:port/db"),
        ("mysql://me:secret@host/db", "mysql://me:***@host/db"),
        ("https://zenodo.org/1/x.zip?X-Signature=b", "https://zenodo.org/1/x.zip"),
        ("postgresql://me:b@host/db?passfile=/tmp/b", "postgresql://me:***@host/db"),
        ("postgresql://me:S3cret", "postgresql://me:***"),
        ("postgresql://me:S3cret/db", "postgresql://me:***"),
        ("postgresql://host:5432/db", None),
        ("postgresql://[::1]:5432/db", None),
        ("sqlite:///C:/studies.db", None),
        ("postgresql://me@host/db", None),
        ("sqlite:///studies@home.db", None),
        ("runs/first", None),
        ("--lr=0.1", None),
    ],
)
def test_passwords_are_hidden(text, hidden):
    assert hide_password(text) == (hidden or text)


@st.composite
def secret_urls(draw) -> str:
    """URLs that SQLAlchemy accepts, with a secret in the password or in the query."""
    before, after = draw(PRINTABLE), draw(PRINTABLE)
    password = before + SECRET + after
    if draw(st.booleans()):
        password = quote(password, safe="")
    user = draw(st.sampled_from(["", "me", "me@server", "me%40server", "%s"]))
    host = draw(st.sampled_from(["", "host", "host:5432", "[::1]:5432", "h1,h2"]))
    place = draw(st.sampled_from(["", "/db", "/db#study", "/a/b"]))
    key = draw(st.sampled_from(["password", "sslpassword", "PGPASSWORD", "token", "x_secret"]))
    query = draw(st.sampled_from(["", "?host=/tmp", "?connect_timeout=3"]))
    if draw(st.booleans()):
        return f"postgresql://{user}:{password}@{host}{place}{query}"
    return f"postgresql://{user}@{host}{place}?{key}={quote(password)}&x=1"


def is_accepted(url: str) -> bool:
    try:
        make_url(url)
    except Exception:
        return False
    return True


@settings(max_examples=count_examples(300))
@given(secret_urls().filter(is_accepted), st.sampled_from(["", "--storage="]))
def test_no_url_keeps_its_password(url, flag):
    assert SECRET not in hide_password(flag + url)


@settings(max_examples=count_examples(25), deadline=None)
@given(secret_urls().filter(is_accepted))
def test_a_password_is_in_no_error_and_no_record(url):
    """The database does not exist, which psycopg and SQLAlchemy report in their own words."""
    terminal = Terminal(command=("tune", "mlp", "--storage", url, f"--storage={url}"))
    assert SECRET not in json.dumps(terminal.command)
    parsed = make_url(url)
    if parsed.host or parsed.query.get("host", "/tmp") != "/tmp":
        url = parsed.set(host="127.0.0.1", port=1).render_as_string(hide_password=False)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(io.StringIO()) as err,
        pytest.raises(RunError) as refused,
    ):
        patch.setattr("lamina.studies.trials.OPENING_PAUSE_SECONDS", 0.0)
        open_database(url)
    assert SECRET not in str(refused.value) + err.getvalue()
    assert refused.value.__cause__ is None


def test_the_words_of_a_driver_are_cleaned():
    url = "postgresql://me:S3cret@host/db?sslpassword=other"
    error = ValueError(f'invalid value for "{url}": S3cret, other\nsecond line')
    assert "S3cret" not in explain(error, url)
    assert "other" not in explain(error, url)

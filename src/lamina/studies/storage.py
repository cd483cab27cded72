"""Where the trials of a tuning are stored: a journal file, or a PostgreSQL database."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from lamina.errors import LaminaError, RunError
from lamina.files import damaged
from lamina.studies.experiment import Decision
from lamina.studies.space import import_optuna
from lamina.text import hide_password

Result = TypeVar("Result")

SECRET = re.compile("pass|secret|token", re.IGNORECASE)  # in a key of a URL's query
JOURNAL = "trials.journal"
CLAIMS = "/finals"  # after a study's name: the study whose trials claim its finals
OUTAGE_SECONDS = 600.0  # how long a worker waits for its storage
FIRST_PAUSE_SECONDS = 0.5  # between two attempts to reach the storage; doubles
LONGEST_PAUSE_SECONDS = 5.0
OPENING_PAUSE_SECONDS = 2.0  # before the second attempt to open a database
LOCK_SECONDS = 15  # after which the lock of a killed process on a journal file is broken


class TrialLostError(Exception):
    """Another worker has given this trial back, because its worker was silent for too long."""


def open_storage(place: str | None, folder: Path) -> Any:
    """Open a PostgreSQL database or a journal file; by default, a file in the study's folder."""
    import_optuna()
    if place is None:
        file = folder / JOURNAL
        if file.is_symlink():
            raise RunError(f"{file} is a link, and lamina would write to its target. Delete it.")
        return _open_journal(file)
    if "://" in place:
        return _open_database(place)
    return _open_journal(Path(place))


def _open_journal(file: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if file.exists() and not file.is_file():
        raise RunError(f"storage is {file}, which is not a file. Use {file / JOURNAL}.")
    try:
        # links, the other kind of lock, need privileges on Windows
        lock = JournalFileOpenLock(str(file), grace_period=LOCK_SECONDS)
        return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
    except OSError as error:
        raise RunError(
            f"Cannot open the trials in {file}: {error.strerror}. Use the path of a file in a"
            " folder that exists, or the URL of a PostgreSQL database."
        ) from error
    except Exception as error:  # values of any type may be at any place in the file
        raise _blame(error, str(file)) from error


def _open_database(url: str) -> Any:
    optuna = import_optuna()
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    shown = hide_password(url)
    try:
        parsed = make_url(url)
        is_postgres = parsed.drivername.partition("+")[0] in ("postgresql", "postgres")
    except Exception:  # of SQLAlchemy, or a port that is not a number
        is_postgres = False
    if not is_postgres or "@" in (parsed.host or ""):
        raise RunError(
            f"storage is {shown!r}, which is not the URL of a PostgreSQL database. Use"
            " postgresql://USER@HOST/DATABASE, with the password in ~/.pgpass, or the path of a"
            " file. In a URL, write %40 for @."
        )
    # A new connection for each transaction, so that none is left open, or found dead after the
    # server has restarted.
    options = {
        "poolclass": NullPool,
        "connect_args": {"connect_timeout": 10, "tcp_user_timeout": 30_000},  # s, ms
    }
    place = parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    open_it = functools.partial(optuna.storages.RDBStorage, place, engine_kwargs=options)
    try:
        try:
            return open_it()
        except SQLAlchemyError:  # the server restarts, or another worker creates the tables
            time.sleep(OPENING_PAUSE_SECONDS)
            return open_it()
    except ImportError as error:
        raise RunError(f"{error} For PostgreSQL, run pip install 'lamina[tune]'.") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = explain(error, url)
        raise RunError(f"Cannot open the database {shown}: {reason}.") from None


def explain(error: BaseException, url: str = "") -> str:
    """The first line of a storage's error, without the passwords of its URL."""
    text = str(error.__cause__ or error).strip().split("\n")[0]
    if "://" in url:
        from sqlalchemy.engine import make_url

        parsed = make_url(url)
        values = [str(value) for key, value in parsed.query.items() if SECRET.search(key)]
        for secret in filter(None, [parsed.password, *values]):
            text = text.replace(str(secret), "***")
    return hide_password(text)


def list_outages() -> tuple[type[Exception], ...]:
    """The errors of an unreachable database; a journal raises ``OSError``."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, OperationalError

    return (OperationalError, InterfaceError, StorageInternalError)


def wait_for(
    call: Callable[[], Result], *others: type[Exception]
) -> Generator[Decision, None, Result]:
    """Retry a call while the storage is unreachable; yields first, so that a signal can end it."""
    outages: tuple[type[Exception], ...] = (*list_outages(), *others)
    began = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except outages as error:
            reason = explain(error)
            if time.monotonic() - began > OUTAGE_SECONDS:
                raise RunError(
                    f"The storage of the study has been unreachable for {OUTAGE_SECONDS / 60:.0f}"
                    f" minutes ({reason}). Start it, and run the command again; nothing is lost."
                ) from error
        if pause == FIRST_PAUSE_SECONDS:
            what = f"for the storage of the study ({reason})"
            yield Decision("waiting", what, "Ctrl-C stops waiting")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def waiting(
    function: Callable[..., Result],
) -> Callable[..., Generator[Decision, None, Result]]:
    """Make a function that uses the storage a generator: see :func:`wait_for`.

    ``TrialLostError`` means that another worker has ended the trial, ``RunError`` that the storage
    contains something other than trials.
    """

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Generator[Decision, None, Result]:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return (yield from wait_for(functools.partial(function, *values, **named), OSError))
        except UpdateFinishedTrialError as error:
            raise TrialLostError from error
        except (LaminaError, TrialLostError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # values of any type may be at any place in a storage
            raise _blame(error, "The storage of the study") from error

    return call


def _blame(error: Exception, what: str) -> RunError:
    reason = f"{type(error).__name__}: {explain(error)}"
    return damaged(what, reason, "Use another one with --storage.")


def load_study(storage: Any, name: str) -> Any:
    """Load a study of Optuna; ``RunError`` if there is none of this name."""
    try:
        return import_optuna().load_study(study_name=name, storage=storage)
    except KeyError:
        raise RunError(
            f"The storage contains no study {name}. Start one with lamina tune NET --over …"
        ) from None
    except Exception as error:
        raise _blame(error, "The storage") from error

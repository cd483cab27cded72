"""Commands in processes of their own that start in milliseconds.

:func:`start` sends an order to a program (this file), which has imported torch and most of lamina.
The program forks a child for it. Signals, kills, limits, standard streams, the folder and the
environment are the child's own, as in a new interpreter; only the imports are done already.
``lamina.cli`` is not among them, because it reads the clock when it is imported.

A child may start Python itself, as the studio does for its commands. With ``forks_python=True``,
these processes are forked as well; see :func:`fork_python`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import importlib
import json
import multiprocessing.process
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest

PATIENCE_SECONDS = 240.0
ORDER_BYTES = 2**17
STREAMS = ("stdin", "stdout", "stderr")
LOADED = (
    "torch._dynamo",
    "lamina.data.sources.scan",
    "lamina.data.pixels",
    "lamina.deploy.report_page",
    "lamina.deploy.studio.computing",
    "lamina.deploy.studio.routes",
    "lamina.drawing",
    "lamina.evaluation",
    "lamina.insight",
    "lamina.runs.differences",
    "lamina.runs.run",
    "lamina.studies.train_net",
    "lamina.studies.finals",
    "lamina.studies.seeds",
    "rich.progress",
    "rich.table",
)
FEW_SHAPES = {"train": 800, "test": 200}
ALL_SHAPES = {"train": 8_000, "test": 2_000}
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux
HIGH_FILE = 512  # file numbers from here on are free
MODULE = "import runpy\nrunpy.run_module('lamina', run_name='__main__', alter_sys=True)"


class Process:
    """A child of the program, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, program: Program, number: int, streams: dict[str, IO[str] | None]) -> None:
        self.program = program
        self.pid = number
        self.stdin, self.stdout, self.stderr = (streams[name] for name in STREAMS)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.program.find_status(self.pid, wait=False)
        return self.returncode

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        if self.returncode is None:
            self.returncode = self.program.find_status(self.pid, wait=True, timeout=timeout)
        return self.returncode

    def communicate(self, timeout: float = PATIENCE_SECONDS) -> tuple[str, str]:
        """Read stdout and stderr to their ends, and wait for the end of the process."""
        if self.stdin is not None:
            self.stdin.close()
        texts = {"stdout": "", "stderr": ""}

        def read(name: str, stream: IO[str]) -> None:
            texts[name] = stream.read()

        threads = [
            threading.Thread(target=read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.stdout), ("stderr", self.stderr))
            if stream is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                self.send_signal(signal.SIGUSR1)  # prints where its threads are
                raise AssertionError(f"process {self.pid} did not end in {timeout:g} s")
        self.wait(timeout)
        return texts["stdout"], texts["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if sys.exc_info()[0] is not None:
            self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


class Program:
    """The program that forks, and the socket to it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.statuses: dict[int, int] = {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        atexit.register(self.close)

    def close(self) -> None:
        self.socket.close()
        self.process.wait()

    def order(self, values: Mapping[str, object], files: list[int]) -> int:
        """Send an order with three open files for the standard streams; returns the process."""
        socket.send_fds(self.socket, [json.dumps(values).encode()], files)
        while True:
            answer = self._receive(PATIENCE_SECONDS)
            if "started" in answer:
                return answer["started"]

    def find_status(
        self, number: int, *, wait: bool, timeout: float = PATIENCE_SECONDS
    ) -> int | None:
        while number not in self.statuses:
            try:
                self._receive(timeout if wait else 0)
            except BlockingIOError:
                return None
            except TimeoutError:
                message = f"process {number} did not end in {timeout:g} s"
                raise AssertionError(message) from None
        return self.statuses[number]

    def _receive(self, timeout: float) -> dict[str, int]:
        self.socket.settimeout(timeout)
        answer: dict[str, int] = json.loads(self.socket.recv(ORDER_BYTES))
        if "ended" in answer:
            self.statuses[answer["ended"]] = answer["status"]
        return answer


@cache
def find_program() -> Program:
    """The program of these tests, which the first order starts."""
    if sys.platform != "linux":
        pytest.skip("processes are forked as Linux does")
    return Program()


def start(
    *words: str | Path,
    code: str = MODULE,
    cwd: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    forks_python: bool = False,
    draws_all_shapes: bool = False,
    **streams: IO[str] | IO[bytes] | int | None,
) -> Process:
    """Start ``lamina WORDS``, or the Python ``code`` with these arguments.

    With ``forks_python``, the Python processes that it starts are forked, too. With
    ``draws_all_shapes``, all of them have the whole data set ``shapes``.
    ``stdin``, ``stdout`` and ``stderr`` are as in ``subprocess.Popen``: ``PIPE``, ``DEVNULL``,
    ``STDOUT``, a file, or ``None`` for the test's own.
    """
    pipes: dict[str, IO[str] | None] = dict.fromkeys(STREAMS)
    files: list[int] = []
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(STREAMS):
            stream = streams.get(name)
            if stream == subprocess.PIPE:
                reads, writes = os.pipe()
                theirs, ours = (reads, writes) if name == "stdin" else (writes, reads)
                pipes[name] = open(ours, "w" if name == "stdin" else "r", encoding="utf-8")  # noqa: PTH123, SIM115
                stack.callback(os.close, theirs)
            elif stream == subprocess.STDOUT:
                theirs = files[1]
            elif stream is None or stream == subprocess.DEVNULL:
                theirs = number if stream is None else os.open(os.devnull, os.O_RDWR)
                if stream is not None:
                    stack.callback(os.close, theirs)
            else:
                assert not isinstance(stream, int)
                theirs = stream.fileno()
            files.append(theirs)
        order = {
            "words": list(map(str, words)),
            "code": code,
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "forks_python": forks_python,
            "draws_all_shapes": draws_all_shapes,
        }
        program = find_program()
        return Process(program, program.order(order, files), pipes)


def unmeasured(**more: str) -> dict[str, str]:
    """The environment without the variables of coverage, and with ``more``.

    An interrupt between two lines of coverage's own would leave its lock taken for ever, and a
    program that traces its lines itself would not see them.
    """
    names = (name for name in os.environ if not name.startswith("COVERAGE"))
    return {**{name: os.environ[name] for name in names}, **more}


def run(
    *words: str | Path,
    code: str = MODULE,
    cwd: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Like :func:`start`; returns when the process has ended."""
    process = start(
        *words,
        code=code,
        cwd=cwd,
        environment=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        printed, errors = process.communicate()
    return subprocess.CompletedProcess(list(map(str, words)), process.returncode, printed, errors)


def serve(orders: socket.socket) -> dict[str, object] | None:
    """Fork a child for each order; returns the order in the child, and ``None`` at the end."""
    ready, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(ready, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == ready:
                    os.read(ready, 4096)
                    for number, status in reap():
                        code = os.waitstatus_to_exitcode(status)
                        send(orders, {"ended": number, "status": code})
                    continue
                text, files, *_ = socket.recv_fds(orders, ORDER_BYTES, 3)
                if not text:
                    return None
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for target, file in enumerate(files):
                        os.dup2(file, target)
                        os.close(file)
                    orders.close()
                    order: dict[str, object] = json.loads(text)
                    return order
                send(orders, {"started": child})
                for file in files:
                    os.close(file)


def send(orders: socket.socket, answer: dict[str, int]) -> None:
    with contextlib.suppress(BrokenPipeError):
        orders.send(json.dumps(answer).encode())


def reap() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while True:
            number, status = os.waitpid(-1, os.WNOHANG)
            if not number:
                return
            yield number, status


def become(order: dict[str, Any]) -> None:
    """Run an order in this process, as Python itself would."""
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__)
    # What a shell starts in the background ignores SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    if not any(name.startswith("COVERAGE") for name in os.environ):
        stop_measuring()
    os.chdir(order["folder"])
    multiprocessing.process.ORIGINAL_DIR = order["folder"]
    # Streams remember whether their files can be sought, so new files need new ones.
    for number, (name, mode) in enumerate(zip(STREAMS, "rww", strict=True)):
        before = getattr(sys, name)
        stream = open(number, mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
        stream.reconfigure(line_buffering=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path[:1] = order.get("paths", [""])
    sys.argv = ["-c", *order["words"]]
    if order.get("draws_all_shapes"):
        draw_shapes(ALL_SHAPES)
    if order.get("forks_python"):
        fork_python()
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(order["code"], "<string>", "exec"), vars(module))


def stop_measuring() -> None:
    """Stop the coverage of the program, which an order without it has inherited."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()):
        measured.stop()


def fork_python() -> None:
    """From now on, fork the Python processes that this process starts, instead of executing them.

    A helper forks them, because this process will have threads. They are children of this process,
    as if it had started them: this process adopts the descendants whose parents end.
    """
    import _posixsubprocess

    execute = _posixsubprocess.fork_exec
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    orders, received = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        orders.close()
        become_python(*adopt_out(received))
        sys.exit()
    received.close()
    turn = threading.Lock()

    def start_python(
        words: list[str | bytes],
        executables: object,
        closes: bool,
        passed: tuple[int, ...],
        folder: str | None,
        environment: list[bytes] | None,
        *rest: Any,
    ) -> int:
        stdin, _, _, stdout, _, stderr, _, problem, _, is_session = rest[:10]
        texts = list(map(os.fsdecode, words))
        if sys.executable not in texts[:4] or not {"-c", "-m"} & set(texts):
            return execute(words, executables, closes, passed, folder, environment, *rest)
        others = sorted(set(passed) - {problem})
        standard = [
            number if file == -1 else file for number, file in enumerate((stdin, stdout, stderr))
        ]
        pairs = (
            os.environ.items()
            if environment is None
            else (os.fsdecode(pair).split("=", 1) for pair in environment)
        )
        order = {
            "command": texts,
            "numbers": [0, 1, 2, *others],
            "folder": os.fsdecode(folder or Path.cwd()),
            "environment": dict(pairs),
            "is_session": bool(is_session),
        }
        with turn:
            socket.send_fds(orders, [json.dumps(order).encode()], [*standard, *others])
            return int(orders.recv(ORDER_BYTES))

    _posixsubprocess.fork_exec = start_python
    if hasattr(subprocess, "_fork_exec"):
        subprocess._fork_exec = start_python


def adopt_out(orders: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork a grandchild for each order, whose parent ends; returns the order in the grandchild."""
    while True:
        text, files, *_ = socket.recv_fds(orders, ORDER_BYTES, 16)
        if not text:
            os._exit(0)
        reads, writes = os.pipe()
        middle = os.fork()
        if middle == 0:
            middle = os.getpid()
            child = os.fork()
            if child:
                os.write(writes, str(child).encode())
                os._exit(0)
            while os.getppid() == middle:
                time.sleep(0.001)
            return json.loads(text), files
        os.waitpid(middle, 0)
        orders.send(os.read(reads, ORDER_BYTES))
        for file in (reads, writes, *files):
            os.close(file)


def become_python(order: dict[str, Any], files: list[int]) -> None:
    """Run a command such as ``nice -n 5 python -P -m lamina data`` in this process."""
    above = [fcntl.fcntl(file, fcntl.F_DUPFD, HIGH_FILE) for file in files]
    os.closerange(3, HIGH_FILE)
    for file, number in zip(above, order["numbers"], strict=True):
        os.dup2(file, number)
        os.close(file)
    if order["is_session"]:
        os.setsid()
    command = order["command"]
    if command[0] == "nice":
        os.nice(int(command[2]))
    place = min(command.index(option) for option in ("-c", "-m") if option in command)
    words = command[place + 2 :]
    code = command[place + 1]
    name = words[0] if words else "python"
    if command[place] == "-m":
        if code == "lamina":
            code = MODULE
        else:
            name = code.rpartition(".")[2]
            code = f"import importlib; importlib.import_module({code!r}).main()"
    Path("/proc/self/comm").write_text(name)
    paths = [] if "-P" in command[:place] else [""]
    become({**order, "words": words, "code": code, "paths": paths})


def main() -> None:
    for name in LOADED:
        importlib.import_module(name)
    spare_the_processor()
    gc.collect()
    gc.freeze()  # children share these pages
    order = serve(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        end_quickly(order)


def spare_the_processor() -> None:
    """Draw few shapes, as in the tests' own processes."""
    draw_shapes(FEW_SHAPES)


def draw_shapes(counts: dict[str, int]) -> None:
    """Let ``shapes`` have this number of images in this process, and in those that it forks."""
    from lamina.data.sources import drawn

    drawn.COUNTS.update(counts)


def end_quickly(order: dict[str, Any]) -> None:
    """Run an order, and end without taking the modules apart, which takes 0.2 s."""
    status = 0
    try:
        become(order)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        status = end.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(status & 255)


if __name__ == "__main__":
    main()

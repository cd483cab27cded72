"""Run commands in children of one process that has loaded everything; kill them at random.

Takes from stdin one JSON object a line: ``command``, the ``folder`` to run it in, the ``cache`` to
use, and ``seconds`` after which the child is killed, or null to let it end. Answers with a line:
its exit status, minus the signal where one ended it, and when it was started.
"""

import importlib
import json
import os
import signal
import sys
import time

from lamina.cli import main


def load_all() -> None:
    """Import what the commands would import, most of it slowly, one after another."""
    for name in (
        "torch._dynamo",
        "lamina.cli.data",
        "lamina.cli.resume",
        "lamina.cli.train",
        "lamina.data.sources.class_folders",
        "lamina.data.workers",
        "lamina.runs.differences",
        "lamina.drawing",
        "lamina.evaluation",
        "lamina.runs.run",
    ):
        importlib.import_module(name)


def run_orders() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # so that it can be waited for
    for line in sys.stdin:
        order = json.loads(line)
        started = time.time()
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            os.chdir(order["folder"])
            os.environ["LAMINA_CACHE"] = order["cache"]
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os._exit(main(order["command"]))
        if (
            order["seconds"] is not None
            and signal.sigtimedwait({signal.SIGCHLD}, order["seconds"]) is None
        ):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        signal.sigtimedwait({signal.SIGCHLD}, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), started]), flush=True)


if __name__ == "__main__":
    load_all()
    run_orders()

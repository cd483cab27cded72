"""Run commands in children of one process that has loaded everything, and kill them at random moments.

Takes from stdin one JSON object a line: ``command``, and ``seconds`` after which the child is killed, or null to let it
end. Answers with a line: its exit status, minus the signal where one ended it, and when it was started.
"""

import json
import os
import signal
import sys
import time

import torch._dynamo  # noqa: F401  # loaded by the first optimizer that is built, slowly

import lamina.cli.data
import lamina.cli.resume
import lamina.cli.train
import lamina.data.folder
import lamina.data.workers
import lamina.differences
import lamina.drawing
import lamina.evaluation
import lamina.resuming
import lamina.training.memory  # noqa: F401
from lamina.cli import main

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # so that it can be waited for

for line in sys.stdin:
    order = json.loads(line)
    started = time.time()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os._exit(main(order["command"]))
    if order["seconds"] is not None and signal.sigtimedwait({signal.SIGCHLD}, order["seconds"]) is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), started]), flush=True)

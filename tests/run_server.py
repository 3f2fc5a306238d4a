"""Starts commands quickly: imports everything once, then forks a process for each command.

Every command is a real process of its own that can be really killed. Reads one JSON value a line:
`{"argv": …, "env": …, "log": file, "limit": bytes, "script": file}` starts `cascade ARGV`, or the
script, which can write files up to a size, and answers its id; a number waits for the process of
that id and answers its exit code, negative for the signal that ended it.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import sys

import torch

import cascade.building.training
import cascade.bulk.commands
import cascade.cli.main
import cascade.cli.progress
import cascade.training.trainer


def main() -> None:
    torch.set_num_threads(1)  # no threads before a fork
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            _, status = os.waitpid(asked, 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork() or _be(asked)
        print(answer, flush=True)


def _be(asked: dict) -> int:
    """Become the command; does not return."""
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for place, opened in enumerate((null, log, log)):
        os.dup2(opened, place)
    if asked["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"], asked["limit"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    os.environ.update(asked["env"])
    sys.argv = ["cascade", *asked["argv"]]
    code = 0
    try:
        if asked.get("script") is None:
            cascade.cli.main.run()
        else:
            runpy.run_path(asked["script"], run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

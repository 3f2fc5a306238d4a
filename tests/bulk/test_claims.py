from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.bulk.claims import Claims
from cascade.errors import OutputError

OTHER = """
import sys
from pathlib import Path
from cascade.bulk.claims import Claims

claims = Claims(Path(sys.argv[1]))
for line in sys.stdin:
    name, *arguments = line.split()
    print(getattr(claims, name)(*arguments), flush=True)
"""


class Other:
    """Claims of another process."""

    def __init__(self, file: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def other(file):
    made = Other(file)
    yield made
    made.kill()


def test_a_job_is_one_s_until_it_is_given_back_or_its_process_is_killed(file, other):
    claims = Claims(file)
    assert other.ask("take a.png") == "True"
    assert not claims.take("a.png")
    assert claims.take("b.png")
    assert other.ask("take b.png") == "False"
    claims.give_back("b.png")
    assert other.ask("take b.png") == "True"
    other.kill()
    assert claims.take("a.png")
    assert claims.take("b.png")


def test_the_first_and_the_last_know_that_they_are(file, other):
    claims = Claims(file)
    assert claims.join()
    claims.let_in()
    assert other.ask("join") == "False"
    assert not claims.leave()
    assert other.ask("leave") == "True"
    other.kill()
    assert claims.join()


def test_who_comes_after_a_killed_one_is_the_first(file, other):
    assert other.ask("join") == "True"
    other.kill()
    assert Claims(file).join()


def test_without_a_file_everything_is_free(tmp_path):
    claims = Claims(None)
    assert claims.join()
    assert claims.take("a")
    claims.give_back("a")
    assert claims.leave()
    claims.close()
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_made_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*no/lock: No such file"):
        Claims(tmp_path / "no" / "lock")

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.bulk import claims as module
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
    process = Other(file)
    yield process
    process.kill()


def test_a_job_belongs_to_one_process_until_it_gives_it_back_or_is_killed(file, other):
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


def test_the_first_to_join_and_the_last_to_leave_learn_that_they_are(file, other):
    claims = Claims(file)
    assert claims.join()
    claims.let_in()
    assert other.ask("join") == "False"
    assert not claims.leave()
    assert other.ask("leave") == "True"
    other.kill()
    assert claims.join()


def test_a_process_that_joins_after_a_killed_one_is_the_first(file, other):
    assert other.ask("join") == "True"
    other.kill()
    assert Claims(file).join()


def test_the_last_process_removes_all_lock_files_but_one(file, other):
    claims = Claims(file)
    for each in ("join", "take a.png"):
        assert other.ask(each) == "True"
    other.ask("let_in")
    assert not claims.join()
    assert claims.take("b.png")
    claims.close()
    assert len(list(file.with_name("lock.d").iterdir())) > 2
    other.ask("close")
    assert os.listdir(file.parent) == ["lock"]


def test_the_lock_files_of_a_killed_process_are_removed_by_the_next(file, other):
    assert other.ask("join") == "True"
    assert other.ask("take a.png") == "True"
    other.kill()
    claims = Claims(file)
    assert claims.join()
    claims.close()
    assert os.listdir(file.parent) == ["lock"]


def test_jobs_that_share_a_slot_are_never_two_processes_at_once(file, other, monkeypatch):
    monkeypatch.setattr(module, "_slot_of", lambda key: 7)
    one, two = Claims(file), Claims(file)
    assert one.take("a.png")
    assert not two.take("b.png")
    one.give_back("a.png")
    assert two.take("b.png")


def test_a_job_may_be_claimed_twice_by_its_process(file):
    claims = Claims(file)
    assert claims.take("a.png")
    assert claims.take("a.png")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_every_claim_succeeds(file, monkeypatch, caplog, number):
    def refuse(descriptor, *, blocking):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "lock_descriptor", refuse)
    one, two = Claims(file), Claims(file)
    for claims in (one, two):
        assert claims.join()
        claims.let_in()
    assert one.take("a.png")
    assert two.take("a.png")
    for claims in (one, two):
        assert claims.leave()
        claims.close()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # one for each process
    assert all("no locks on this file system" in message for message in messages)


def test_a_lock_that_fails_for_another_reason_is_one_clear_error(file, monkeypatch):
    def fail(descriptor, *, blocking):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "lock_descriptor", fail)
    with pytest.raises(OutputError, match=r"cannot write .*lock: Input/output error\."):
        Claims(file).join()


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

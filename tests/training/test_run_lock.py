"""The lock on the folder of a run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from filelock import lock_descriptor

from cascade.errors import OutputError
from cascade.training.run_folder import LOCK
from cascade.training.run_lock import RunLock


def is_free(folder: Path) -> bool:
    """Whether another process could lock the folder."""
    with open(folder / LOCK, "ab") as file:
        return lock_descriptor(file.fileno(), blocking=False)


def test_the_last_of_several_locks_in_a_process_frees_the_folder(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    for lock in (second, first):
        assert not is_free(tmp_path)
        lock.release()
    assert is_free(tmp_path)
    first.acquire()
    assert not is_free(tmp_path)


def test_a_folder_that_was_removed_and_made_again_is_locked_again(tmp_path):
    first = RunLock(tmp_path)
    (tmp_path / LOCK).unlink()
    second = RunLock(tmp_path)
    first.release()
    assert not is_free(tmp_path)
    second.release()


def test_whoever_holds_the_lock_is_named(tmp_path):
    with open(tmp_path / LOCK, "ab") as file:
        file.write(b" process 7 on far-away")
        file.flush()
        assert lock_descriptor(file.fileno(), blocking=False)
        with pytest.raises(OutputError, match=r"training in .* \(process 7 on far-away\); stop"):
            RunLock(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_data_worker_that_lives_longer_does_not_hold_the_lock(tmp_path):
    lock = RunLock(tmp_path)
    begun, begin = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(begin, b"x")
        time.sleep(600)
        os._exit(0)
    try:
        os.read(begun, 1)
        assert not is_free(tmp_path)
        lock.release()
        assert is_free(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(begun)
        os.close(begin)


def test_a_run_that_fails_frees_its_folder(make_trainer, tmp_path):
    def fail(line: dict[str, float]) -> None:
        raise RuntimeError("failed")

    trainer = make_trainer(tmp_path / "run", "train.images=32", report=fail)
    assert not is_free(tmp_path / "run")
    with pytest.raises(RuntimeError, match="failed"):
        trainer.run()
    assert is_free(tmp_path / "run")

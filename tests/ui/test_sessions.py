"""Visitors do not see each other's files, and nothing of them remains."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cascade.errors import ContractError
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.jobs import Job
from cascade.ui.sessions import ORPHAN_S, Sessions


@pytest.fixture
def sessions(tmp_path) -> Sessions:
    (tmp_path / "root").mkdir()
    return Sessions(tmp_path / "root")


def upload(sessions: Sessions, content: str) -> Path:
    """A file where Gradio puts uploads: in a folder named after its content."""
    path = sessions.root / content / "a.png"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def test_each_visitor_has_one_folder_whose_name_cannot_be_guessed(sessions):
    first, second = sessions.of("one"), sessions.of("two")
    assert sessions.of("one") is first
    assert first.folder != second.folder
    assert len(set(first.folder.name.removeprefix("visit-"))) > 8
    assert len(first.folder.name) == len("visit-") + 64


def test_the_end_of_a_visit_removes_its_folder_and_its_uploads_alone(sessions):
    mine, theirs, both = (upload(sessions, name) for name in ("mine", "theirs", "both"))
    first, second = sessions.of("one"), sessions.of("two")
    sessions.own(first, [mine, both])
    sessions.own(second, [theirs, both])
    (first.folder / "result.png").write_text("")
    sessions.end("one")
    assert not first.folder.exists()
    assert not mine.parent.exists()
    assert second.folder.exists()
    assert theirs.exists()
    assert both.exists()
    sessions.end("two")
    assert list(sessions.root.iterdir()) == []


def test_uploads_of_visitors_who_left_early_go_later(sessions):
    old, new = upload(sessions, "old"), upload(sessions, "new")
    long_ago = time.time() - ORPHAN_S - 1
    os.utime(old, (long_ago, long_ago))
    sessions.end("somebody else")
    assert not old.exists()
    assert new.exists()


def test_closing_stops_jobs_and_removes_everything(sessions):
    def work(job: Job) -> None:
        while True:
            job.show(text="at work")
            time.sleep(0.01)

    job = sessions.of("one").begin("tab", lambda folder: Job(folder, DeviceQueue(), work))
    job.start()
    sessions.close()
    assert job.view().status == "cancelled"
    assert not sessions.root.exists()


def test_a_visitor_has_one_job_at_a_time_and_the_next_replaces_its_files(sessions):
    def make(folder: Path) -> Job:
        return Job(folder, DeviceQueue(), lambda job: (folder / "result").write_text("") and None)

    session = sessions.of("one")
    first = session.begin("tab", make)
    with pytest.raises(ContractError, match="not finished; wait for it or cancel it"):
        session.begin("tab", make)
    first.start()
    first.join()
    assert (first.folder / "result").is_file()
    second = session.begin("tab", make)
    assert list(second.folder.iterdir()) == []

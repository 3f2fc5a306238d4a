"""Visitors do not see each other's files, and nothing of them remains."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from cascade.errors import ContractError
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.jobs import Job
from cascade.ui.sessions import EMPTY_S, IDLE_S, ORPHAN_S, Sessions


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

    job = sessions.begin("one", "tab", lambda folder: Job(folder, DeviceQueue(), work))
    sessions.close()
    assert job.view().status == "cancelled"
    assert not sessions.root.exists()


def test_a_visitor_has_one_job_at_a_time_and_the_next_replaces_its_files(sessions):
    go, queue = threading.Event(), DeviceQueue()

    def work(job: Job) -> None:
        (job.folder / "result").write_text("")
        assert go.wait(10)

    def begin() -> Job:
        return sessions.begin("one", "tab", lambda folder: Job(folder, queue, work))

    first = begin()
    with pytest.raises(ContractError, match="not finished; wait for it or cancel it"):
        begin()
    go.set()
    first.join()
    assert (first.folder / "result").is_file()
    second = begin()
    second.join()
    assert [path for path in sessions.of("one").folder.iterdir()] == [second.folder]


def test_a_visitor_whom_a_full_queue_refused_can_begin_later_and_keeps_the_last_results(sessions):
    go, queue = threading.Event(), DeviceQueue(most_waiting=0)

    def begin(visitor: str, work=lambda job: None) -> Job:
        return sessions.begin(visitor, "tab", lambda folder: Job(folder, queue, work))

    last = begin("two", lambda job: (job.folder / "result").write_text("") and None)
    last.join()
    first = begin("one", lambda job: go.wait(10) and None)
    with pytest.raises(ContractError, match="0 jobs are waiting already"):
        begin("two")
    assert (last.folder / "result").is_file()
    go.set()
    first.join()
    begin("two").join()


def test_the_root_stays_when_a_file_directly_in_it_goes_and_is_made_again_if_it_went(sessions):
    left = sessions.root / "tmp1"  # as Gradio leaves them at each event of an upload field
    left.write_text("")
    long_ago = time.time() - EMPTY_S - 1
    os.utime(left, (long_ago, long_ago))
    sessions.sweep()
    assert not left.exists()
    assert sessions.root.is_dir()
    sessions.root.rmdir()
    assert sessions.of("one").folder.is_dir()


def test_visits_of_which_nothing_is_heard_end_unless_they_are_at_work(sessions, monkeypatch):
    go, now_s = threading.Event(), time.monotonic()
    silent, open_page, at_work = (sessions.of(name) for name in ("silent", "open", "working"))
    own = upload(sessions, "own")
    sessions.own(silent, [own])
    work = lambda folder: Job(folder, DeviceQueue(), lambda job: go.wait(10) and None)  # noqa: E731
    job = sessions.begin("working", "tab", work)
    monkeypatch.setattr("cascade.ui.sessions.time.monotonic", lambda: now_s + IDLE_S + 5)
    sessions.hear("open")
    sessions.sweep()
    go.set()
    job.join()
    assert not silent.folder.exists()
    assert not own.exists()
    assert open_page.folder.exists()
    assert at_work.folder.exists()


def test_what_comes_after_the_end_of_a_visit_makes_no_new_one(sessions):
    sessions.of("one")
    sessions.end("one")
    sessions.hear("one")
    sessions.cancel("one")
    sessions.end("one")
    assert list(sessions.root.iterdir()) == []


def test_a_full_disk_begins_no_job_and_keeps_no_upload_without_a_visit(sessions):
    small = Sessions(sessions.root, most_gib=100 / 2**30)
    mine, orphan = upload(small, "m" * 60), upload(small, "o" * 60)
    small.own(small.of("one"), [mine])
    with pytest.raises(ContractError, match="the disk space of this page is used up"):
        small.begin("one", "tab", lambda folder: pytest.fail("it must not begin"))
    small.sweep()
    assert mine.exists()
    assert not orphan.exists()
    small.begin("one", "tab", lambda folder: Job(folder, DeviceQueue(), lambda job: None)).join()


def test_what_a_job_writes_after_its_visit_ended_goes_too(sessions, monkeypatch):
    monkeypatch.setattr("cascade.ui.jobs.STOP_S", 0.01)
    go = threading.Event()

    def work(job: Job) -> None:
        assert go.wait(10)
        job.folder.mkdir(parents=True)
        (job.folder / "late.png").write_text("")

    job = sessions.begin("one", "tab", lambda folder: Job(folder, DeviceQueue(), work))
    sessions.end("one")
    assert list(sessions.root.iterdir()) == []
    go.set()
    job.join()
    end = time.monotonic() + 10
    while list(sessions.root.iterdir()):
        assert time.monotonic() < end, "it stays"
        time.sleep(0.005)

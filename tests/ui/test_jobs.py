"""Jobs take turns on the device, show what happens, and end when they are cancelled."""

from __future__ import annotations

import threading
import time
import zipfile

import pytest
import torch

from cascade.bulk.progress import ProgressUpdate
from cascade.errors import ContractError
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.jobs import Job, Result
from cascade.ui.showing import progress


def until(condition) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_jobs_work_one_at_a_time_and_in_order(tmp_path):
    queue, at_work, order, go = DeviceQueue(), [], [], threading.Event()

    def work(job: Job) -> None:
        at_work.append(job)
        assert len(at_work) == 1
        order.append(job)
        assert go.wait(10)
        at_work.remove(job)

    jobs = [Job(tmp_path, queue, work) for _ in range(3)]
    for job in jobs:
        job.start()
    until(lambda: order == jobs[:1])
    assert "Waiting: 1 before yours" in jobs[1].view().text
    assert "Waiting: 2 before yours" in jobs[2].view().text
    go.set()
    for job in jobs:
        job.join()
    assert order == jobs
    assert [job.view().status for job in jobs] == ["done"] * 3


def test_a_waiting_job_can_be_cancelled_and_too_many_are_refused(tmp_path):
    queue, go = DeviceQueue(most_waiting=1), threading.Event()
    first = Job(tmp_path, queue, lambda job: go.wait(10) and None)
    second = Job(tmp_path, queue, lambda job: pytest.fail("it was cancelled"))
    first.start()
    second.start()
    with pytest.raises(ContractError, match="1 jobs are waiting already"):
        Job(tmp_path, queue, lambda job: None).start()
    second.stop()
    assert second.view().status == "cancelled"
    assert first.view().status == "working"
    go.set()
    first.join()


def test_cancelling_ends_the_work_at_its_next_step_and_keeps_what_is_there(tmp_path):
    (tmp_path / "a.png").write_text("")
    result, steps = Result(caption="a.png", file=tmp_path / "a.png"), []

    def work(job: Job) -> None:
        try:
            while True:
                job.on_step(torch.zeros(1, 3, 4, 4))
                steps.append(job)
        except Exception:
            pytest.fail("no part of a command takes the end of a job for a failed picture")
        finally:
            job.offer([result])
            job.pack({"a.png": result.file})

    job = Job(tmp_path, DeviceQueue(), work)
    job.start()
    until(lambda: steps)
    job.stop()
    view = job.view()
    assert (view.status, view.results) == ("cancelled", [result])
    assert view.archive is not None
    assert "Finished results are below" in progress(view)


def test_the_device_is_free_while_a_zip_is_written(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("")
    queue, other_done = DeviceQueue(), threading.Event()
    first = Job(tmp_path, queue, lambda job: job.pack({"a.png": tmp_path / "a.png"}))
    second = Job(tmp_path, queue, lambda job: other_done.set())
    write = zipfile.ZipFile.write

    def late(archive: zipfile.ZipFile, *names: object) -> None:
        assert other_done.wait(10)
        write(archive, *names)

    monkeypatch.setattr(zipfile.ZipFile, "write", late)
    first.start()
    second.start()
    first.join()
    assert (first.view().status, first.view().faults) == ("done", ())
    assert zipfile.ZipFile(first.view().archive).namelist() == ["a.png"]


def test_errors_are_one_line_without_a_traceback_or_a_path(tmp_path, caplog):
    def mistake(job: Job) -> None:
        raise ContractError(f"{tmp_path}/inputs/a.png: is\nodd.")

    def fault(job: Job) -> None:
        raise KeyError(f"{tmp_path}/results/x")

    for work, text in ((mistake, "a.png: is odd."), (fault, "unexpected KeyError: 'x'")):
        job = Job(tmp_path, DeviceQueue(), work)
        job.start()
        job.join()
        assert job.view().status == "failed"
        assert job.view().faults == (text,)
        assert "Traceback" not in progress(job.view())
    assert "KeyError" in caplog.text  # whoever serves the page can look for the cause


def test_progress_counts_pictures_and_shows_a_preview_without_a_file(tmp_path):
    views = []

    def work(job: Job) -> None:
        job.on_step(torch.rand(1, 3, 8, 8) * 2 - 1)
        name = f"{tmp_path}/inputs/<b>.png"
        job.on_progress(ProgressUpdate(1, 4, name, 0.5, left_s=120.0, page="page 2 of 3"))
        views.append(job.view())

    job = Job(tmp_path, DeviceQueue(), work)
    job.start()
    job.join()
    (view,) = views
    assert view.share == 1.5 / 4
    assert view.text == "Image 2 of 4, <b>.png, page 2 of 3, about 2 min left"
    assert view.preview.startswith("data:image/jpeg;base64,")
    assert "&lt;b&gt;.png" in progress(view)
    assert list(tmp_path.iterdir()) == []
    assert job.view().preview == ""

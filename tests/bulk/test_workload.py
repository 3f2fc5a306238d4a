from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from cascade.bulk import workload
from cascade.bulk.inputs import InputPicture
from cascade.bulk.jobs import Job
from cascade.bulk.workload import Workload, rough_duration, short_megapixels


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def jobs_of(folder: Path, *sizes: tuple[int, int] | None) -> list[Job]:
    """Jobs for pictures of these widths and heights; None is no picture."""
    jobs = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.png"
        if size is None:
            path.write_text("text")
        else:
            Image.new("L", size).save(path)
        picture = InputPicture(path, PurePosixPath(path.name))
        jobs.append(Job(picture, folder / "out" / path.name, str(number), 0))
    return jobs


def area(size_px: tuple[int, int]) -> float:
    return size_px[0] * size_px[1]


def test_megapixels_of_results_are_known_before_the_work(tmp_path):
    jobs = jobs_of(tmp_path, (1000, 500), (2000, 250))
    load = Workload(jobs, work=area, factor=2)
    assert load.megapixels == pytest.approx(4.0)
    assert load.line(0, "photo-x4") == "2 images, 4.0 megapixels to make with photo-x4"
    one = Workload(jobs[:1], work=area, factor=2)
    line = "1 image (1,200 more are already done), 2.0 megapixels to make with m"
    assert one.line(1200, "m") == line


def test_files_of_unknown_size_count_as_average_and_make_the_estimate_a_rough_one(tmp_path):
    load = Workload(jobs_of(tmp_path, (1000, 1000), None), work=area, factor=1)
    assert load.line(0, "m") == "2 images, about 2.0 megapixels to make with m"
    assert Workload(jobs_of(tmp_path, None), work=area, factor=1).line(0, "m") == "1 image with m"


def test_of_very_many_pictures_only_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(workload, "MOST_HEADS", 2)
    jobs = jobs_of(tmp_path, (1000, 1000), (1, 1), (1000, 1000), (1, 1), (1000, 1000))
    looked_at = []
    original = InputPicture.heads
    monkeypatch.setattr(InputPicture, "heads", lambda p: (looked_at.append(p), original(p))[1])
    load = Workload(jobs, work=area, factor=1)
    assert len(looked_at) == 2
    assert load.line(0, "m").startswith("5 images, about 2.5 megapixels")


def test_time_left_follows_from_the_work_done_so_far(tmp_path, clock):
    first, second, third = jobs_of(tmp_path, (100, 100), (200, 150), (100, 100))
    load = Workload([first, second, third], work=area, factor=1, clock=clock)
    assert load.left_s() is None
    clock.now += 10
    assert load.left_s("0", 0.5) == pytest.approx(90)  # half of the first of five parts
    clock.now += 10
    load.settle("0", made=True)
    assert load.left_s() == pytest.approx(80)
    load.settle("2", made=False)  # failed, or was there
    assert load.left_s() == pytest.approx(60)
    clock.now += 60
    load.settle("1", made=True)
    assert load.left_s() == 0
    assert load.unfinished == 0


def test_the_very_first_moments_are_no_measure(tmp_path, clock):
    load = Workload(jobs_of(tmp_path, (100, 100)), work=area, factor=1, clock=clock)
    clock.now += 0.5
    assert load.left_s("0", 0.9) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (40, "40 s"),
        (840, "14 min"),
        (3600 * 3 + 60 * 19, "3 h 20 min"),
        (3600 * 5, "5 h"),
        (3600 * 52, "2 d 4 h"),
        (3600 * 48, "2 d"),
    ],
)
def test_durations_are_as_exact_as_an_estimate_is(seconds, text):
    assert rough_duration(seconds) == text


@pytest.mark.parametrize(
    ("megapixels", "text"),
    [(12345.6, "12,346"), (34.4, "34"), (3.44, "3.4"), (0.0213, "0.02"), (0.0000001, "0.0001")],
)
def test_megapixels_have_few_digits(megapixels, text):
    assert short_megapixels(megapixels) == f"{text} megapixels"

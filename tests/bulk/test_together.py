"""Small pictures of one size are drawn together, and nobody can tell from the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.bulk import commands, together
from cascade.bulk.commands import Request, prepare_colouring, prepare_upscaling
from cascade.bulk.together import groups
from cascade.errors import CascadeError
from cascade.imaging.picture_reading import read_picture
from cascade.restoration.colouring import Colouring
from cascade.restoration.upscaling import Upscaling, upscale_pictures
from cascade.sampling.overrides import Overrides

SIZES = [(20, 14), (20, 14), (14, 20), (20, 14), (20, 14), (20, 14)]


@pytest.fixture
def pictures(draw, tmp_path, monkeypatch) -> Path:
    """Six pictures, of which two and three neighbours have one size."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(together, "SHARE", 1)
    for number, size in enumerate(SIZES):
        mode = ("RGB", "RGBA", "L")[number % 3]
        draw(Path("in") / f"{number}.png", size=size, mode=mode, seed=number)
    return Path("in")


@pytest.fixture
def prepared(pictures, upscaler, colourer, monkeypatch):
    """A function that prepares a command, with a limit to the work together."""

    def prepare(command: str, work_together: int, out: str):
        monkeypatch.setitem(commands.TOGETHER_PX, "cpu", work_together)
        exact = Overrides({"all": {"steps": 2}})
        models = {"upscale": upscaler, "colourise": colourer}
        request = Request(
            inputs=[str(pictures)],
            out=Path(out),
            model=models[command],
            overrides=exact,
            device="cpu",
            seeds=2 if command == "colourise" else 1,
        )
        if command == "upscale":
            return prepare_upscaling(request, Upscaling(precision="fp32", seed=3))
        return prepare_colouring(request, Colouring(precision="fp32", seed=3), recolour=True)

    return prepare


@pytest.mark.parametrize("command", ["upscale", "colourise"])
def test_results_equal_those_of_pictures_alone(prepared, command):
    for work_together, out in ((0, "alone"), (2**20, "together")):
        work = prepared(command, work_together, out)
        work.run()
        assert work.outcome().new == len(SIZES) * (2 if command == "colourise" else 1)
    for alone in Path("alone").glob("*.png"):
        ours, other = (read_picture(path) for path in (Path("together") / alone.name, alone))
        assert (ours.colour.int() - other.colour.int()).abs().max() <= 1  # rounding of the last bit
        assert ours.metadata == other.metadata
        assert (ours.alpha is None) == (other.alpha is None)


def test_neighbours_of_one_size_are_drawn_in_one_call(prepared, monkeypatch):
    counts = []

    def make(stages, pictures, *options, progress):
        counts.append(len(pictures))
        return upscale_pictures(stages, pictures, *options, progress=progress)

    monkeypatch.setattr(commands, "upscale_pictures", make)
    prepared("upscale", 2**20, "out").run()
    assert counts == [2, 1, 3]


def test_work_has_a_limit_and_finished_jobs_are_alone(prepared):
    work = prepared("upscale", 2 * 20 * 14 * 16, "out")
    for finished, expected in (((), [2, 1, 2, 1]), (work.jobs[:1], [1, 1, 1, 2, 1])):
        parts = list(groups(work.jobs, work.method, finished.__contains__))
        assert [len(part) for part in parts] == expected
        assert [job for part in parts for job in part] == list(work.jobs)


def test_other_processes_find_work_too(prepared, monkeypatch):
    monkeypatch.setattr(together, "SHARE", 3)
    work = prepared("upscale", 2**20, "out")
    parts = groups(work.jobs, work.method, lambda job: False)
    assert [len(part) for part in parts] == [2, 1, 2, 1]


def test_a_picture_that_fails_does_not_stop_those_drawn_with_it(prepared, monkeypatch):
    def make(stages, pictures, *options, progress):
        if any(picture.alpha is not None for picture in pictures):
            raise CascadeError("odd.")
        return upscale_pictures(stages, pictures, *options, progress=progress)

    monkeypatch.setattr(commands, "upscale_pictures", make)
    work = prepared("upscale", 2**20, "out")
    work.run()
    assert work.outcome().new == 4
    assert work.outcome().failed == [("in/1.png", "odd."), ("in/4.png", "odd.")]


def test_a_damaged_picture_among_them_is_named(prepared, pictures):
    path = pictures / "3.png"
    path.write_bytes(path.read_bytes()[:80])
    work = prepared("upscale", 2**20, "out")
    work.run()
    ((name, _),) = work.outcome().failed
    assert (name, work.outcome().new) == ("in/3.png", 5)

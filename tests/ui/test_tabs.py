"""What the tabs do: the same as the commands, byte for byte, with errors of one line."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.ui import showing
from cascade.ui.jobs import Job, View
from cascade.ui.models import models_for
from cascade.ui.painting import START

pytest.importorskip("gradio")


def packed(view: View) -> dict[str, bytes]:
    """The files of a job's zip."""
    with zipfile.ZipFile(view.archive) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(folder: Path) -> dict[str, bytes]:
    """The files that a command wrote, without its own notes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def strokes(size: tuple[int, int], box: tuple[int, int, int, int]) -> str:
    image = Image.new("RGBA", size)
    image.paste((200, 30, 30, 255), box)
    file = io.BytesIO()
    image.save(file, "PNG")
    return START + base64.b64encode(file.getvalue()).decode()


def test_upscaling_writes_what_the_command_writes(finished, pipelines, draw, command, tmp_path):
    from cascade.ui.upscaling_tab import upscale

    names = ("a.jpg", "b.png")
    uploads = [str(draw(name, seed=number)) for number, name in enumerate(names)]
    view = finished(upscale, uploads, pipelines["tiny-x2"], 2.0, 3, 2, "2")
    assert (view.status, view.faults) == ("done", ())
    options = ("--model", pipelines["tiny-x2"], "--scale", 2, "--seed", 3, "-n", 2, "--steps", 2)
    done = command("upscale", *uploads, "-o", tmp_path / "out", *options, "--device", "cpu")
    assert done.code == 0, done.err
    assert packed(view) == written(tmp_path / "out")
    assert sorted(packed(view)) == [
        "a-seed3.jpg", "a-seed4.jpg", "a-variants.png",
        "b-seed3.png", "b-seed4.png", "b-variants.png",
    ]  # fmt: skip
    assert b"compositeWithTrainedAlgorithmicMedia" in packed(view)["a-seed3.jpg"]
    assert [result.caption for result in view.results[:2]] == ["a.jpg, seed 3", "a.jpg, seed 4"]
    assert showing.results(view.results).count('<div class="pair"') == 4


def test_colouring_with_painted_hints_writes_what_the_command_writes(
    finished, pipelines, draw, command, tmp_path
):
    from cascade.ui.colouring_tab import HINTS, colourise

    upload = str(draw("a.png", mode="L"))
    painted = strokes((40, 28), (8, 8, 24, 20))
    view = finished(colourise, [upload], pipelines["tiny-colour"], 1, 1, "2", painted)
    assert (view.status, view.faults) == ("done", ())
    files = packed(view)
    (tmp_path / HINTS).write_bytes(files.pop(HINTS))
    options = ("--model", pipelines["tiny-colour"], "--hints", tmp_path / HINTS, "--seed", 1)
    done = command("colourise", upload, "-o", tmp_path / "out", *options, "--steps", 2)
    assert done.code == 0, done.err
    assert files == written(tmp_path / "out")


def test_restoring_writes_what_the_command_writes(finished, pipelines, draw, command, tmp_path):
    from cascade.ui.restoring_tab import restore

    upload, model = str(draw("a.png")), pipelines["tiny-pairs"]
    view = finished(restore, [upload], model, 4, 1, "")
    assert (view.status, view.faults) == ("done", ())
    done = command("restore", upload, "--model", model, "--seed", 4, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert packed(view) == written(tmp_path / "out")


def test_generating_writes_what_the_command_writes(finished, pipelines, command, tmp_path):
    from cascade.ui.generating_tab import generate

    model = pipelines["tiny-draw"]
    view = finished(generate, model, 3, 7, "2", "1.5", "", "", "cat", "")
    assert (view.status, view.faults) == ("done", ())
    options = ("-n", 3, "--seed", 7, "--steps", 2, "--guidance", 1.5, "--class", "cat")
    done = command("generate", model, *options, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert packed(view) == written(tmp_path / "out")
    assert [result.caption for result in view.results] == ["seed 7", "seed 8", "seed 9"]


def test_editing_writes_what_the_command_writes(finished, pipelines, draw, command, tmp_path):
    from cascade.ui.editing_tab import MASK, edit

    upload, model = str(draw("a.png", size=(16, 16))), pipelines["tiny-draw"]
    painted = strokes((64, 64), (16, 16, 40, 40))
    view = finished(edit, upload, model, 0, 1, "2", 1.0, "1", "", "", "cat", "noto", painted)
    assert (view.status, view.faults) == ("done", ())
    files = packed(view)
    (tmp_path / MASK).write_bytes(files.pop(MASK))
    options = ("--model", model, "--mask", tmp_path / MASK, "--class", "cat,noto", "--steps", 2)
    done = command("edit", upload, "-o", tmp_path / "out", *options, "--resamplings", 1)
    assert done.code == 0, done.err
    assert files == written(tmp_path / "out")
    before, after = Image.open(upload), Image.open(io.BytesIO(files["a.png"]))
    differs = (np.asarray(before) != np.asarray(after)).any(-1)
    assert differs[5:9, 5:9].any()
    differs[4:10, 4:10] = False
    assert not differs.any()


@pytest.mark.parametrize("name", ["tiny-fill", "tiny-student", "tiny-draw"])
def test_all_that_edit_take_the_values_that_the_page_begins_with(finished, pipelines, draw, name):
    from cascade.ui.editing_tab import edit
    from cascade.ui.fields import passes_of

    (model,) = models_for(pipelines[name])
    assert "edit" in model.tabs
    passes = passes_of(model)["value"]
    upload = str(draw("a.png", size=(16, 16)))
    painted = strokes((64, 64), (16, 16, 40, 40))
    view = finished(edit, upload, model.name, 0, 1, "2", 1.0, passes, "", "", painted)
    assert (view.status, view.faults) == ("done", ())


def test_a_whole_picture_is_redrawn_if_nothing_is_painted(
    finished, pipelines, draw, command, tmp_path
):
    from cascade.ui.editing_tab import edit

    upload, model = str(draw("a.png", size=(16, 16))), pipelines["tiny-draw"]
    view = finished(edit, upload, model, 0, 1, "2", 0.6, "3", "", "", "", "", "")
    assert (view.status, view.faults) == ("done", ())
    options = ("--model", model, "--strength", 0.6, "--steps", 2)
    done = command("edit", upload, "-o", tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert packed(view) == written(tmp_path / "out")


def test_each_step_is_shown_and_the_last_one_can_still_be_cancelled(
    finished, pipelines, draw, monkeypatch
):
    from cascade.ui.upscaling_tab import upscale

    steps = []

    def on_step(job: Job, images) -> None:
        steps.append(tuple(images.shape))
        if len(steps) == 5:
            job.cancel()
        job.check()

    monkeypatch.setattr(Job, "on_step", on_step)
    uploads = [str(draw("a.png")), str(draw("b.png", size=(16, 16)))]
    view = finished(upscale, uploads, pipelines["tiny-x2"], 2.0, 0, 1, "3")
    assert view.status == "cancelled"
    assert steps == [(1, 3, 28, 40)] * 3 + [(1, 3, 32, 32)] * 2
    assert list(packed(view)) == ["a.png"]


def test_a_broken_picture_is_one_line_and_the_others_are_done(finished, pipelines, draw):
    from cascade.ui.upscaling_tab import upscale

    broken = draw("broken.png", size=(60, 60))
    broken.write_bytes(broken.read_bytes()[:-200])
    uploads = [str(broken), str(draw("a.png"))]
    view = finished(upscale, uploads, pipelines["tiny-x2"], 2.0, 0, 1, "1")
    assert view.status == "done"
    (fault,) = view.faults
    assert fault.startswith("failed: broken.png: not a readable image (")
    assert list(packed(view)) == ["a.png"]


def test_files_of_one_name_do_not_replace_each_other(finished, pipelines, draw):
    from cascade.ui.upscaling_tab import upscale

    first = draw("a.png")
    second = first.parent / "other" / "a.png"
    second.parent.mkdir()
    second.write_bytes(draw("b.png", seed=1).read_bytes())
    uploads = [str(first), str(second)]
    view = finished(upscale, uploads, pipelines["tiny-x2"], 2.0, 0, 1, "1")
    assert sorted(packed(view)) == ["a-2.png", "a.png"]


def test_a_result_that_would_be_too_large_is_refused_before_the_model_is_loaded(
    finished, site, draw
):
    from cascade.ui.upscaling_tab import upscale

    object.__setattr__(site.limits, "result_megapixels", 0.001)
    view = finished(upscale, [str(draw("a.png"))], "no-such-model", 8.0, 0, 1, "1")
    assert view.status == "failed"
    assert "a.png: at 8×, 0.0 megapixels are more than the 0.001 allowed" in view.faults[0]


def test_uploads_are_copied_where_the_file_system_has_no_links(
    finished, pipelines, draw, monkeypatch
):
    from cascade.ui.upscaling_tab import upscale

    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("cascade.ui.bulk_work.os.link", no_links)
    view = finished(upscale, [str(draw("a.png"))], pipelines["tiny-x2"], 2.0, 0, 1, "1")
    assert (view.status, view.faults) == ("done", ())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"uploads": None}, "no image yet"),
        ({"seed": None}, "the seed must be a whole number"),
        ({"seed": -1}, "the seed must be a whole number"),
        ({"steps": "many"}, "the number of steps must be a number, got 'many'"),
        ({"steps": "2.5"}, "the number of steps must be whole"),
        ({"scale": 0.5}, "scale must be above 1"),
        ({"model": "photo-x5"}, "no pipeline 'photo-x5'"),
    ],
)
def test_mistakes_of_the_user_are_one_line(finished, pipelines, draw, change, text):
    from cascade.ui.upscaling_tab import upscale

    values = {
        "uploads": [str(draw("a.png"))], "model": pipelines["tiny-x2"], "scale": 2.0,
        "seed": 0, "variants": 1, "steps": "1",
    } | change  # fmt: skip
    view = finished(upscale, *values.values())
    assert view.status == "failed"
    (fault,) = view.faults
    assert text in fault
    assert "\n" not in fault
    assert view.archive is None
    assert "Nothing was made" in showing.progress(view)

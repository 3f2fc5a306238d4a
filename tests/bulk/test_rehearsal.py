"""`--dry-run` tells what a run then does, and writes nothing."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from cascade.conditioning.mask import Mask
from cascade.contract import Contract
from cascade.space import Space


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and contents of everything below a folder, by path."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def options(upscaler) -> list[str]:
    return ["-o", "out", "--model", upscaler, "--device", "cpu"]


def test_a_dry_run_tells_what_the_run_then_does_and_writes_nothing(
    command, photos, options, tmp_path
):
    options += ["--scale", "2.3"]
    (photos / "broken.png").write_text("no picture")
    (photos / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    rehearsed = command("upscale", photos, *options, "--dry-run")
    assert tree(tmp_path) == before
    *lines, last = rehearsed.out.splitlines()
    what = "upscaled (x4 by the model, resampled to x2.3), 1 failed, 1 left out"
    assert last == f"5 to be {what}; nothing was written"
    sizes = {}
    for line in lines:
        name, _, size = line.removeprefix("to be made: ").partition(", ")
        sizes[name] = size
    assert "failed: photos/broken.png: not a readable image" in rehearsed.err
    assert "left out: 1 file that is not an image (1 .txt)" in rehearsed.err
    done = command("upscale", photos, *options)
    assert done.code == rehearsed.code == 1
    assert done.out.splitlines()[-1] == f"5 {what}"
    for name, size in sizes.items():
        with Image.open(name) as picture:
            assert size == f"{picture.width}x{picture.height} px"
    assert len(sizes) == 5


@pytest.mark.parametrize("has_ledger", [True, False])
def test_a_dry_run_knows_what_is_done(command, photos, options, tmp_path, has_ledger):
    assert command("upscale", photos, *options).code == 0
    Path("out/b.png").unlink()
    if not has_ledger:
        Path("out/.cascade-upscale.jsonl").unlink()
    before = tree(tmp_path)
    rehearsed = command("upscale", photos, *options, "--dry-run")
    assert tree(tmp_path) == before
    assert rehearsed.code == 0
    *lines, last = rehearsed.out.splitlines()
    assert sorted(lines)[-1] == "to be made: out/b.png, 80x56 px"
    assert [line.partition(":")[0] for line in sorted(lines)[:-1]] == ["already done"] * 4
    assert last == "1 to be upscaled, 4 already done; nothing was written"
    changed = command("upscale", photos, *options, "--steps", "1", "--dry-run")
    assert changed.code == 1
    assert "already exists and" in changed.err
    replaced = command("upscale", photos, *options, "--steps", "1", "--dry-run", "--overwrite")
    assert replaced.out.splitlines()[-1] == "5 to be upscaled; nothing was written"
    assert tree(tmp_path) == before


def test_a_dry_run_names_what_is_left_out(command, photos, colourer):
    line = ["colourise", photos, "-o", "out", "--model", colourer, "--dry-run"]
    rehearsed = command(*line)
    assert rehearsed.out.splitlines() == [
        "to be made: out/sub/c.png, 20x14 px",
        "1 to be coloured, 4 left out; nothing was written",
    ]
    assert "left out: 4 images, which have colours already" in rehearsed.err
    assert rehearsed.code == 0
    assert not Path("out").exists()
    assert command(*line, "--quiet").out == ""


def test_a_dry_run_knows_the_size_of_a_result_with_new_borders(
    command, saved_pipeline, photos, tmp_path, draw
):
    model = saved_pipeline("fill", Contract(Space(size_px=16), (Mask(),)), tmp_path / "model")
    options = ["-o", "wide.jpg", "--uncrop", "2,0,3,1", "--model", model]
    rehearsed = command("edit", photos / "a.jpg", *options, "--dry-run")
    assert rehearsed.out.splitlines()[0] == "to be made: wide.jpg, 25x15 px"
    assert not Path("wide.jpg").exists()


def test_a_dry_run_of_a_shard_counts_its_images(command, photos, options, tmp_path):
    with tarfile.open("shard.tar", "w") as shard:
        for name in ("a.jpg", "b.png"):
            shard.add(photos / name, name)
    before = tree(tmp_path)
    rehearsed = command("upscale", "shard.tar", *options, "--dry-run")
    assert tree(tmp_path) == before
    assert rehearsed.out.splitlines() == [
        "to be made: out/shard.tar:a.jpg, 80x56 px",
        "to be made: out/shard.tar:b.png, 80x56 px",
        "2 to be upscaled; nothing was written",
    ]
    assert command("upscale", "shard.tar", *options).code == 0
    again = command("upscale", "shard.tar", *options, "--dry-run")
    assert again.out.splitlines()[-1] == "0 to be upscaled, 2 already done; nothing was written"
    shutil.rmtree("out")


@pytest.mark.parametrize(
    ("size", "colour", "reason"),
    [
        ((16, 30), "red", "c.png: the hints have 16x30 px, but the image has another size"),
        ((20, 14), "grey", "c.png: the hints hold no coloured stroke"),
    ],
)
def test_a_dry_run_knows_hints_that_do_not_fit(command, colourer, photos, size, colour, reason):
    Image.new("RGB", size, colour).save("hints.png")
    line = ["colourise", photos / "sub" / "c.png", "-o", "out.png", "--hints", "hints.png"]
    for more in (["--dry-run"], []):
        done = command(*line, "--model", colourer, "--device", "cpu", *more)
        assert done.code == 1
        assert reason in done.err


def test_a_dry_run_names_the_frame_that_fails(command, saved_pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = saved_pipeline("fill", Contract(Space(size_px=16), (Mask(),)), tmp_path / "model")
    clear, opaque = Image.new("RGBA", (20, 14), (9, 9, 9, 0)), Image.new("RGBA", (20, 14), "red")
    clear.save("two.webp", save_all=True, append_images=[opaque], lossless=True)
    for more in (["--dry-run"], []):
        line = ["two.webp", "-o", "out.webp", "--model", model, "--device", "cpu", *more]
        done = command("edit", *line)
        assert done.code == 1
        assert "two.webp: frame 2: nothing to inpaint is marked" in done.err


def test_a_dry_run_needs_the_device_of_the_run(command, photos, upscaler):
    line = ["upscale", photos, "-o", "out", "--model", upscaler, "--device", "cuda:77"]
    rehearsed = command(*line, "--dry-run")
    assert (rehearsed.code, rehearsed.out) == (1, "")
    assert "device 'cuda:77' cannot be used here" in rehearsed.err
    assert not Path("out").exists()


@pytest.mark.parametrize("out", ["file/below", "file/below/a.png"])
def test_a_dry_run_needs_a_folder_that_can_be_written(command, photos, upscaler, out):
    Path("file").write_text("mine")
    line = ["upscale", photos / "a.jpg", "-o", out, "--model", upscaler, "--device", "cpu"]
    for more in (["--dry-run"], []):
        done = command(*line, *more)
        assert (done.code, done.out) == (1, "")
        assert f"cannot write to folder {Path('file', 'below')}: " in done.err

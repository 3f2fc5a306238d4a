from __future__ import annotations

import shutil
from collections import Counter

import pytest
from PIL import Image

from cascade.data.checking import check_images
from cascade.data.folder import FolderSource


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_that_is_wrong_is_named(pictures, tmp_path, workers):
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    (folder / "red" / "bad.png").write_bytes(b"no image")
    (folder / "blue" / "0.json").write_text("{")
    shutil.copy(folder / "red" / "0.png", folder / "red-dot" / "copy.png")
    Image.new("RGB", (50, 12)).save(folder / "flat.png")
    calls = []
    report = check_images(
        FolderSource(folder), size_px=16, workers=workers, progress=lambda *n: calls.append(n)
    )
    assert report.images == 21
    assert calls == [("reading images", number, 21) for number in range(1, 22)]
    assert [line.partition(": ")[0] for line in report.broken] == [
        str(folder / "blue" / "0.json"),
        str(folder / "red" / "bad.png"),
    ]
    assert report.too_small == [f"{folder / 'flat.png'}: 50x12 px"]
    assert report.duplicates == [(str(folder / "red/0.png"), str(folder / "red-dot/copy.png"))]
    assert report.labels == {"class": Counter({"blue": 5, "red": 6, "red-dot": 7})}
    assert report.sizes_px == {(36, 40): 18, (50, 12): 1}
    assert report.lines()[-1] == "21 images, 2 broken, 1 too small, 1 duplicated"
    assert f"too small: {folder / 'flat.png'}: 50x12 px" in report.lines()
    assert "class: red-dot 7, red 6, blue 5" in report.lines()
    assert "sizes: shorter side 12 to 36 px, median 36; most common 36x40 (18)" in report.lines()


def test_without_a_size_nothing_is_too_small_and_captions_are_no_classes(tmp_path):
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a caption")
    report = check_images(FolderSource(tmp_path))
    assert report.too_small == []
    assert report.labels == {}

"""Facts about benchmarks/robustness.py: what its verdicts count."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def test_a_verdict_counts_what_is_cut_off_made_twice_and_left_over(tmp_path):
    pytest.importorskip("httpx")
    from robustness import SIDE_PX, Place

    place = Place(tmp_path, 3)
    place.out.mkdir()
    image = Image.new("RGB", (2 * SIDE_PX, 2 * SIDE_PX))
    for name in place.names:
        image.save(place.out / name)
    whole = (place.out / place.names[0]).read_bytes()
    (place.out / place.names[0]).write_bytes(whole[:-20])
    (place.out / ".a.png.7.tmp").touch()
    lines = [{"event": "made", "output": name} for name in (*place.names, place.names[1])]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (place.out / ".cascade-upscale.jsonl").write_text(text)
    assert place.verdict() == "2 of 3 results whole, 1 made twice, 1 other files left"


def test_a_visitor_knows_the_result_of_another(tmp_path):
    pytest.importorskip("httpx")
    from page_visitors import _judged

    noise = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3), dtype=np.uint8)
    result, archive = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise[1]).resize((8, 8), Image.Resampling.NEAREST).save(result, "PNG")
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("b.png", result.getvalue())
    inputs = noise.astype(np.float32)
    assert _judged(archive.getvalue(), "b.png", 1, inputs) == "got their own result"
    assert _judged(archive.getvalue(), "b.png", 0, inputs) == "GOT ANOTHER'S RESULT"
    assert _judged(archive.getvalue(), "a.png", 1, inputs) == "with a damaged download"

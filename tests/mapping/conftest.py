"""What the tests of mapping over batches share: saved tiny pipelines, and pictures as files."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from cascade.pipeline import CascadePipeline


@pytest.fixture(scope="session")
def enlarging(_stages, tmp_path_factory) -> Path:
    """Folder of a saved pipeline of one upsampler, x2, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-x2"
    CascadePipeline.from_stages({"upsampler": _stages["upsampler"]}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def colouring(_stages, tmp_path_factory) -> Path:
    """Folder of a saved pipeline that colours, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-grey"
    CascadePipeline.from_stages({"colouriser": _stages["colouriser"]}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def generating(_stages, tmp_path_factory) -> Path:
    """Folder of a saved pipeline of a base stage and an upsampler, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny-32"
    stages = {name: _stages[name] for name in ("base", "upsampler")}
    CascadePipeline.from_stages(stages).save_pretrained(folder)
    return folder


@pytest.fixture
def scans(tmp_path) -> Path:
    """A folder with four pictures of several formats, and a file that is none."""
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number, name in enumerate(["a.png", "b.jpg", "sub/c.gif", "sub/d.webp"]):
        pixels = noise.integers(0, 255, (12 + number, 10, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def batch_of():
    """A function that reads a folder as an engine would: columns of bytes and paths."""

    def read(folder: Path) -> dict[str, list]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            "path": [str(file) for file in files],
            "bytes": [file.read_bytes() for file in files],
        }

    return read


@pytest.fixture
def memory_store():
    """fsspec's store in memory, empty before and after."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()

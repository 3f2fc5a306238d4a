"""What the tests of work in bulk share: saved tiny pipelines, and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.bulk.method import Method
from cascade.bulk.preparing import Preparation
from cascade.bulk.request import Request
from cascade.bulk.work import Bulk
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


def _saved(name: str, contract: Contract, folder: Path) -> str:
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        contract,
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 4},
        sampling=SamplingSettings(steps=2),
        embedding_dim=32,
    )
    with torch.no_grad():
        for parameter in stage.parameters():
            if not parameter.any():  # so that what it draws depends on what it is given
                parameter.normal_(std=0.3)
    CascadePipeline.from_stages({name: stage}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def saved_pipeline():
    """A function that saves a pipeline of one stage with random weights: name, contract, folder."""
    return _saved


@pytest.fixture(scope="session")
def upscaler(tmp_path_factory) -> str:
    """Folder of a saved pipeline that enlarges 16 to 64 px, or x4, with random weights."""
    contract = Contract(
        Space(size_px=64), (LowResolution(size_px=16, augmentation_range=(0.0, 0.5)),)
    )
    return _saved("upsampler", contract, tmp_path_factory.mktemp("model") / "tiny-x4")


@pytest.fixture(scope="session")
def colourer(tmp_path_factory) -> str:
    """Folder of a saved pipeline that colours grey pictures, with random weights."""
    contract = Contract(Space(size_px=32), (Luminance(),))
    return _saved("colourer", contract, tmp_path_factory.mktemp("model") / "tiny-grey")


def draw(path: Path, *, size: tuple[int, int] = (20, 14), mode: str = "RGB", seed: int = 0) -> Path:
    """Write a picture of smooth random colours."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(30, 225, (3, 4, channels)).astype(np.uint8)
    image = Image.fromarray(noise.squeeze()).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(name="draw")
def draw_fixture():
    """A function that writes a picture of smooth random colours, and returns its path."""
    return draw


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Five pictures in two folders below the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    draw(folder / "a.jpg", seed=1)
    draw(folder / "b.png", mode="RGBA", seed=2)
    draw(folder / "sub" / "c.png", mode="L", seed=3)
    draw(folder / "sub" / "d.webp", size=(9, 31), seed=4)
    draw(folder / "sub" / "e.bmp", seed=5)
    return folder


@pytest.fixture
def copying(upscaler) -> Callable[..., Bulk]:
    """A function that prepares a bulk command whose results are copies: all but the network."""

    def prepare(*inputs: object, out: str = "out", make=None, settings=None, **values) -> Bulk:
        request = Request(
            inputs=[str(each) for each in inputs],
            out=out if "://" in out else Path(out),
            model=upscaler,
            device="cpu",
            **values,
        )
        method = Method(
            command="upscale",
            description="copied",
            make=make or (lambda pictures, seeds, progress: list(pictures)),
            settings={"command": "upscale", "model": "none", **(settings or {})},
            work=math.prod,
            metadata=request.metadata,
            overwrite=request.overwrite,
        )
        return Preparation("upscale", request, 0).bulk(method, None)

    return prepare

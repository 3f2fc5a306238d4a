"""What the tests of the page share: saved tiny pipelines, pictures, and jobs that have run."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.student import Student
from cascade.space import Space
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.jobs import Job, View
from cascade.ui.limits import Limits
from cascade.ui.sessions import Sessions


def _of_pairs() -> DiffusionStage:
    """A stage with random weights that makes one picture of a pair from the other."""
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(Space(size_px=16), (PairedImage(),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=2),
        embedding_dim=16,
    )


def _student_of(stage: DiffusionStage) -> DiffusionStage:
    """The same stage, which says that it is a student."""
    student = copy.deepcopy(stage)
    student.contract = replace(stage.contract, student=Student(steps=2))
    return student


@pytest.fixture(scope="session")
def pipelines(_stages, tmp_path_factory) -> dict[str, str]:
    """Folders of saved tiny pipelines, one for each thing that a page can do."""
    root = tmp_path_factory.mktemp("pipelines")
    chains = {
        "tiny-x2": {"upsampler": _stages["upsampler"]},
        "tiny-colour": {"colouriser": _stages["colouriser"]},
        "tiny-draw": {"base": _stages["base"]},
        "tiny-pairs": {"restorer": _of_pairs()},
        "tiny-fill": {"inpainter": _stages["inpainter"]},
        "tiny-student": {"base": _student_of(_stages["base"])},
    }
    for name, stages in chains.items():
        CascadePipeline.from_stages(stages).save_pretrained(root / name)
    return {name: str(root / name) for name in chains}


@pytest.fixture
def draw(tmp_path):
    """A function that writes a picture of random colours, and returns its path."""

    def draw_file(name: str, size: tuple[int, int] = (20, 14), mode: str = "RGB", seed: int = 0):
        noise = np.random.default_rng(seed).integers(30, 225, (3, 4, 3)).astype(np.uint8)
        path = tmp_path / "uploads" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).convert(mode).resize(size).save(path)
        return path

    return draw_file


@pytest.fixture
def site(tmp_path):
    """What all tabs share, with its folder below the folder of the test."""
    from cascade.ui.panel import Site

    root = tmp_path / "page"
    root.mkdir()
    return Site(sessions=Sessions(root), queue=DeviceQueue(), limits=Limits(), device="cpu")


@pytest.fixture
def finished(site, tmp_path):
    """A function that does work in a job and waits until it is over."""

    def run(work, *values, folder: Path | None = None) -> View:
        folder = folder or tmp_path / "job"
        folder.mkdir()
        job = Job(folder, site.queue, lambda job: work(job, site, *values))
        job.start()
        job.join()
        return job.view()

    return run

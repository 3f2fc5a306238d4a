"""Recipes: the readable YAML files that describe a stage or a pipeline. Config stops here.

YAML is read by OmegaConf, `key=value` overrides are merged, and pydantic checks the result. A
recipe holds values only: no import paths, nothing that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from yaml import YAMLError

from cascade.errors import RecipeError, nearest


def _no_boolean(value: Any) -> Any:
    """Python counts with booleans, and pydantic lets it: true would be 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Beta = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, le=1)]
RecipeKind = Literal["stages", "pipelines"]


class Section(BaseModel):
    """A part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class ContractSection(Section):
    """What the stage takes and gives."""

    size_px: Whole = Field(gt=0)
    channels: Literal[3] = 3
    takes: Literal["noise", "low_res", "grey"] | None = None
    low_res_px: Whole | None = Field(default=None, gt=0)
    resize_kernel: Literal["bicubic", "bilinear", "area", "nearest"] = "bicubic"
    quantised: bool = True
    augmentation_range: tuple[Number, Number] = (0.0, 0.0)


class DegradationSection(Section):
    """How small images are damaged in training."""

    probability: Number = 1.0
    orders: Whole = 2
    blur_sigma: tuple[Number, Number] = (0.2, 3.0)
    sinc_probability: Number = 0.1
    resize: tuple[Number, Number] = (0.3, 1.5)
    noise: tuple[Number, Number] = (1.0, 25.0)
    jpeg_quality: tuple[Number, Number] | None = (30.0, 95.0)


class ConditionSection(Section):
    """Labels, and how conditions are dropped and disturbed in training."""

    labels: list[str] = []
    label_drop: Number = Field(default=0.1, ge=0, le=1)
    image_drop: Number = Field(default=0.0, ge=0, le=1)
    blur_probability: Number = Field(default=0.0, ge=0, le=1)
    degradation: DegradationSection | None = None
    generated_fraction: Number = Field(default=0.0, ge=0, le=1)
    generated_by: str | None = None
    generated_images: Whole = Field(default=10_000, gt=0)
    generated_strength: tuple[Share, Share] = (0.1, 0.5)


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
    """Where the images are and how they are cut."""

    path: str
    only: dict[str, list[str]] = {}
    crop_px: Whole | None = Field(default=None, gt=0)
    flip: bool = True
    cache_mib: Whole = Field(default=1024, ge=0)
    max_broken_share: Number = Field(default=0.01, ge=0, le=1)
    name_pattern: str | None = None
    cache_dir: str | None = None


class TrainSection(Section):
    """How the stage is trained."""

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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    checkpoint_every_images: Whole = Field(default=50_000, gt=0)
    keep_checkpoints: Whole = Field(default=2, gt=0)
    sample_every_images: Whole = Field(default=50_000, ge=0)
    sample_count: Whole = Field(default=16, gt=0)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    workers: Whole = Field(default=0, ge=0)


class SamplingSection(Section):
    """How the stage samples; in a pipeline, what is not given stays as the stage has it."""

    sampler: str | None = None
    steps: Whole | None = Field(default=None, gt=0)
    guidance: Number | None = None
    augmentation_level: Number | None = Field(default=None, ge=0, le=1)
    threshold: Literal["none", "static", "dynamic"] | None = None
    percentile: Number | None = Field(default=None, gt=0, le=1)
    eta: Number | None = Field(default=None, ge=0)
    temperature: Number | None = Field(default=None, ge=0, le=1)


class StageRecipe(Section):
    """One trainable stage."""

    kind: Literal["stage"]
    name: str
    description: str = ""
    contract: ContractSection
    condition: ConditionSection = ConditionSection()
    network: Annotated[UNetSection | TransformerSection, Field(discriminator="kind")]
    diffusion: DiffusionSection = DiffusionSection()
    data: DataSection
    train: TrainSection = TrainSection()
    sampling: SamplingSection = SamplingSection()


class PipelineStageSection(Section):
    """One stage of a pipeline: its name there, the recipe it is trained by, how it samples."""

    name: str = Field(pattern=r"^[A-Za-z_]\w*$")
    recipe: str
    sampling: SamplingSection = SamplingSection()


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


Recipe = TypeVar("Recipe", bound=Section)


# ---- finding ------------------------------------------------------------------------------------


def recipes_root() -> Path:
    """The folder that holds `stages` and `pipelines`: in the package, or the checkout beside it."""
    package = Path(__file__).parent
    if (package / "_recipes").is_dir():
        return package / "_recipes"
    if (package.parent / "pyproject.toml").is_file():
        return package.parent
    raise RecipeError(f"no recipes found in {package}; reinstall cascade-diffusion.")


def list_recipes(kind: RecipeKind) -> list[Path]:
    """The bundled recipes of a kind, sorted by name."""
    pattern = {"stages": "*.yaml", "pipelines": "*/pipeline.yaml"}[kind]
    return sorted((recipes_root() / kind).glob(pattern))


def recipe_name(path: Path) -> str:
    """How a recipe is called on the command line."""
    return path.parent.name if path.name == "pipeline.yaml" else path.stem


def find_recipe(name: str, kind: RecipeKind, *, beside: Path | None = None) -> Path:
    """Find a recipe by path, or a bundled one by name.

    Args:
        name: a YAML file, a folder with `pipeline.yaml`, or a bundled name such as `emoji-64`.
        kind: what it should be.
        beside: the recipe that names it, from whose folder a relative path leads there; default:
            it leads there from the working folder.

    Raises:
        RecipeError: if there is none; the message offers the nearest names.
    """
    path = Path(name) if beside is None else beside.parent / name
    if path.is_file():
        return path
    if kind == "pipelines" and (path / "pipeline.yaml").is_file():
        return path / "pipeline.yaml"
    bundled = {recipe_name(each): each for each in list_recipes(kind)}
    short = name.removeprefix(f"{kind}/")
    if short in bundled:
        return bundled[short]
    word = kind.removesuffix("s")
    raise RecipeError(
        f"no {word} recipe {name!r}, neither a file nor bundled: {nearest(name, bundled)}"
    )


def find_any_recipe(name: str) -> Path:
    """Find a recipe of either kind.

    Args:
        name: as for `find_recipe`; where a stage and a pipeline are called the same, the stage is
            meant, and `pipelines/NAME` is the pipeline.

    Raises:
        RecipeError: if there is none.
    """
    for kind in get_args(RecipeKind):
        try:
            return find_recipe(name, kind)
        except RecipeError:
            continue
    bundled = {recipe_name(path) for kind in get_args(RecipeKind) for path in list_recipes(kind)}
    raise RecipeError(
        f"no recipe {name!r}, neither a file nor bundled: {nearest(name, sorted(bundled))}"
    )


# ---- reading ------------------------------------------------------------------------------------


def load_stage_recipe(path: Path, overrides: Sequence[str] = ()) -> StageRecipe:
    """Read and check the recipe of a stage.

    Args:
        path: of the YAML file.
        overrides: such as `train.batch_size=32`.

    Raises:
        RecipeError: naming file, key, what was expected and the nearest valid key.
    """
    return _load(path, overrides, StageRecipe)


def load_pipeline_recipe(path: Path, overrides: Sequence[str] = ()) -> PipelineRecipe:
    """Read and check the recipe of a pipeline; as `load_stage_recipe`."""
    return _load(path, overrides, PipelineRecipe)


def load_any_recipe(name: str, overrides: Sequence[str] = ()) -> StageRecipe | PipelineRecipe:
    """Find, read and check a recipe of either kind.

    Raises:
        RecipeError: as `find_any_recipe` and `load_stage_recipe`.
    """
    path = find_any_recipe(name)
    kind = _read_yaml(path).get("kind")
    if kind not in ("stage", "pipeline"):
        raise RecipeError(f"{path}: key 'kind' must be 'stage' or 'pipeline', got {kind!r}.")
    return _load(path, overrides, StageRecipe if kind == "stage" else PipelineRecipe)


def dump_recipe(recipe: StageRecipe | PipelineRecipe) -> str:
    """The whole recipe, defaults included, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump(mode="json")))


def _load(path: Path, overrides: Sequence[str], model: type[Recipe]) -> Recipe:
    config = _read_yaml(path)
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise RecipeError(
                f"override {override!r} must be key=value, such as train.images=1000."
            )
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
        return model.model_validate(values)
    except TypeError as error:
        raise RecipeError(
            f"{path}: an override names a place inside a list; give the whole list, such as "
            "network.channels=[64,128]."
        ) from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise RecipeError(_explain(path, error, model)) from error
        raise RecipeError(f"{path}: {_one_line(error)}.") from error


def _read_yaml(path: Path) -> DictConfig:
    try:
        config = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise RecipeError(f"{path}: not valid YAML ({_one_line(error)}).") from error
    if not isinstance(config, DictConfig):
        raise RecipeError(f"{path}: a recipe must be a mapping of keys to values.")
    return config


def _explain(path: Path, error: ValidationError, model: type[Section]) -> str:
    """One line about the most telling fault, and how many more there are."""
    faults = error.errors()
    # A recipe of the other kind lacks keys, and so does one in which a key is misspelt.
    first = min(faults, key=lambda f: (f["loc"] != ("kind",), f["type"] != "extra_forbidden"))
    location = [str(part) for part in first["loc"] if part not in ("unet", "transformer")]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        text = f"unknown key {key!r}; {nearest(location[-1], known)}"
    elif first["type"] == "missing":
        text = f"key {key!r} is missing"
    else:
        text = f"key {key!r}: {first['msg'].lower()}, got {first['input']!r}"
    more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{path}: {text}{more}"


def _known_keys(model: type[Section], location: Sequence[int | str]) -> list[str]:
    """Names of the keys of the section at a location of a pydantic error."""
    current: Any = model
    for part in location:
        options = _section_options(current)
        if isinstance(part, int):
            continue
        by_kind = {_kind_of(option): option for option in options}
        if part in by_kind:
            current = by_kind[part]
            continue
        for option in options:
            if part in option.model_fields:
                current = option.model_fields[part].annotation
    return [name for option in _section_options(current) for name in option.model_fields]


def _section_options(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, list) or get_args(annotation):
        return [option for part in get_args(annotation) for option in _section_options(part)]
    return []


def _kind_of(option: type[Section]) -> str | None:
    field = option.model_fields.get("kind")
    return get_args(field.annotation)[0] if field is not None else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

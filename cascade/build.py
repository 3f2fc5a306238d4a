"""From checked recipes to the objects they describe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.data.generated_low_res import GeneratedLowRes
from cascade.data.sources import ImageSource, open_source
from cascade.data.training_images import TrainingImages, check_crop
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import RecipeError, WeightsError, nearest
from cascade.pipeline import CascadePipeline
from cascade.recipe import (
    PipelineRecipe,
    PipelineStageSection,
    SamplingSection,
    StageRecipe,
    dump_recipe,
    find_recipe,
    load_pipeline_recipe,
    load_stage_recipe,
)
from cascade.sampling.settings import SamplingSettings
from cascade.saving.atomic import atomic_file
from cascade.saving.differences import differences
from cascade.stage import Stage
from cascade.training.checkpoint import checkpoints
from cascade.training.generated_pool import generated_pool
from cascade.training.processes import make_accelerator, together
from cascade.training.run_folder import check_same_run
from cascade.training.settings import TrainingSettings
from cascade.training.starting_point import start_from
from cascade.training.trainer import Trainer

GENERATED_KEYS = (
    "generated_fraction",
    "generated_by",
    "generated_images",
    "generated_strength",
)
logger = logging.getLogger(__name__)


def build_stage(
    recipe: StageRecipe, labels: LabelVocabulary | None, process: NoiseProcess | None = None
) -> Stage:
    """Make the stage that a recipe describes, with new weights.

    Args:
        recipe: of the stage.
        labels: names of the classes, or None if the recipe has no label fields.
        process: default: made from the recipe too.
    """
    condition = recipe.condition.model_dump(exclude={"labels", "degradation", *GENERATED_KEYS})
    damage = recipe.condition.degradation
    return Stage.build(
        Contract(**recipe.contract.model_dump()),
        process or build_process(recipe),
        network=recipe.network.kind,
        network_options=recipe.network.model_dump(exclude={"kind"}),
        labels=labels,
        degradation=None if damage is None else Degradation(**damage.model_dump()),
        sampling=apply_sampling(SamplingSettings(), recipe.sampling),
        **condition,
    )


def build_process(recipe: StageRecipe) -> NoiseProcess:
    """Make the noise process that a recipe describes."""
    diffusion = recipe.diffusion.model_dump()
    schedule_keys = ("train_steps", "shift", "zero_terminal_snr")
    schedule = NoiseSchedule(
        diffusion.pop("schedule"), **{key: diffusion.pop(key) for key in schedule_keys}
    )
    return NoiseProcess(schedule, **diffusion)


def apply_sampling(settings: SamplingSettings, section: SamplingSection) -> SamplingSettings:
    """The settings with what a recipe gives put in."""
    return settings.changed(**section.model_dump())


def build_vocabulary(recipe: StageRecipe, source: ImageSource) -> LabelVocabulary | None:
    """Collect the class names of the recipe's label fields from the data; None without fields."""
    if not recipe.condition.labels:
        return None
    return LabelVocabulary(source.vocabulary(recipe.condition.labels))


def build_trainer(
    recipe: StageRecipe, out: Path, *, report: Callable[[dict[str, float]], None] | None = None
) -> Trainer:
    """Make everything that training a recipe needs.

    Args:
        recipe: of the stage.
        out: folder of the run.
        report: see `Trainer`.

    Raises:
        CascadeError: if recipe, data and folder do not go together.
    """
    import torch

    make_accelerator()
    with together():
        _check_same_network(out, recipe)
    data = recipe.data.model_dump()
    opening = {key: data.pop(key) for key in ("path", "only", "name_pattern", "cache_dir")}
    with together():
        source = open_source(**opening)
        vocabulary = build_vocabulary(recipe, source)
        torch.manual_seed(recipe.train.seed)
        stage = build_stage(recipe, vocabulary)
        _check_crop_suits_network(recipe, stage)
        images = TrainingImages(
            source, stage.contract, labels=vocabulary, seed=recipe.train.seed, **data
        )
        if recipe.train.init_from is not None and not checkpoints(out / "checkpoints"):
            start_from(stage, Stage.from_pretrained(find_stage(Path(recipe.train.init_from))))
    if recipe.condition.generated_fraction > 0:
        images.generated = build_pool(recipe, images, out / "generated")
    settings = TrainingSettings(**recipe.train.model_dump(exclude={"init_from"}))
    trainer = Trainer(stage, images, out, settings, report=report)
    with together():
        if trainer.accelerator.is_main_process:
            if trainer.state.images_seen > 0:
                _tell_changes(out / "recipe.yaml", recipe)
            with atomic_file(out / "recipe.yaml") as temporary:
                temporary.write_text(dump_recipe(recipe), encoding="utf-8")
    return trainer


def build_pool(recipe: StageRecipe, images: TrainingImages, folder: Path) -> GeneratedLowRes:
    """Have the previous stage make small images, as the recipe's `condition.generated_*` say."""
    condition = recipe.condition
    with together():
        if condition.generated_by is None:
            raise RecipeError(
                "condition.generated_fraction needs condition.generated_by: the run or stage that "
                "makes the small images."
            )
        previous = Stage.from_pretrained(find_stage(Path(condition.generated_by)))
    return generated_pool(
        previous,
        images,
        folder,
        count=condition.generated_images,
        fraction=condition.generated_fraction,
        strength=condition.generated_strength,
    )


def _check_same_network(out: Path, recipe: StageRecipe) -> None:
    """Name the keys of the network that differ; the weights alone could not."""
    if not checkpoints(out / "checkpoints"):
        return
    try:
        before = load_stage_recipe(out / "recipe.yaml")
    except RecipeError:  # of another version
        return
    if before.name == recipe.name:
        networks = [{"network": each.network.model_dump(mode="json")} for each in (before, recipe)]
        check_same_run(out, *networks)


def _tell_changes(before: Path, recipe: StageRecipe) -> None:
    """Log what a resumed run does otherwise than its last part; all of it may change."""
    try:
        old = load_stage_recipe(before).model_dump(mode="json")
    except RecipeError:  # of another version
        return
    for key, value, new_value in differences(old, recipe.model_dump(mode="json")):
        logger.info("going on with %s=%s, which was %s.", key, new_value, value)


def check_recipe(recipe: StageRecipe | PipelineRecipe, path: Path | None = None) -> list[str]:
    """Build what a recipe describes, without weights in memory, and say what it is.

    Args:
        recipe: of a stage or a pipeline.
        path: where it was read, whose folder relative paths of a pipeline's stages lead from;
            default: the working folder.

    Raises:
        CascadeError: if it cannot be built, or the stages of a pipeline do not join.
    """
    if isinstance(recipe, StageRecipe):
        return [_describe(recipe, _check_stage(recipe))]
    lines = []
    previous: tuple[str, Contract] | None = None
    for section in recipe.stages:
        stage_recipe = load_stage_recipe(find_recipe(section.recipe, "stages", beside=path))
        stage = _check_stage(stage_recipe)
        stage.check_settings(apply_sampling(stage.sampling, section.sampling))
        lines.append(f"{section.name}: {_describe(stage_recipe, stage)}")
        if previous is not None:
            stage.contract.check_follows(previous[1], name=section.name, previous_name=previous[0])
        previous = (section.name, stage.contract)
    return [*lines, f"{recipe.name}: the stages join"]


def _check_stage(recipe: StageRecipe) -> Stage:
    import torch

    fields = {field: [f"any {field}"] for field in recipe.condition.labels}
    process = build_process(recipe)  # not on the meta device: its numbers are checked
    with torch.device("meta"):
        stage = build_stage(recipe, LabelVocabulary(fields) if fields else None, process)
    stage.check_settings(stage.sampling)
    check_crop(recipe.data.crop_px, stage.contract)
    _check_crop_suits_network(recipe, stage)
    return stage


def _check_crop_suits_network(recipe: StageRecipe, stage: Stage) -> None:
    crop_px, multiple_px = recipe.data.crop_px, stage.network.size_multiple_px
    if crop_px is not None and crop_px % multiple_px:
        raise RecipeError(
            f"data.crop_px must be a multiple of {multiple_px} for this network, got {crop_px}."
        )


def _describe(recipe: StageRecipe, stage: Stage) -> str:
    millions = sum(p.numel() for p in stage.parameters()) / 1e6
    return (
        f"{recipe.name}: {stage.contract.taken} -> {stage.contract.size_px} px, "
        f"{recipe.network.kind} with {millions:.2f} M parameters"
    )


# ---- pipelines ----------------------------------------------------------------------------------


def find_stage(run: Path) -> Path:
    """The folder of a trained stage, given itself or its run.

    Raises:
        WeightsError: if there is none.
    """
    for folder in (run / "stage", run):
        if (folder / "stage.json").is_file():
            return folder
    raise WeightsError(f"no trained stage in {run}; train it first, or name another run.")


def chain_pipeline(
    recipe_path: Path,
    runs: Mapping[str, Path],
    out: Path,
    *,
    dtype: str = "fp32",
    card: Path | None = None,
) -> CascadePipeline:
    """Join trained stages as a pipeline recipe says, and save them with it.

    Args:
        recipe_path: of the pipeline.
        runs: where stages were trained, by name; the others are looked for in `runs/RECIPE`.
        out: folder of the saved pipeline.
        dtype: of its weights: `fp32`, `bf16` or `fp16`.
        card: file with the text of the model card.

    Raises:
        CascadeError: if a stage is missing or damaged, or the stages do not join.
    """
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype not in dtypes:
        raise RecipeError(f"dtype must be one of {', '.join(dtypes)}, got {dtype!r}.")
    recipe = load_pipeline_recipe(recipe_path)
    card_text = None if card is None else _read_text(card)
    names = [section.name for section in recipe.stages]
    for name in runs:
        if name not in names:
            raise RecipeError(f"{recipe_path}: no stage {name!r}; {nearest(name, names)}")
    stages = {}
    for section in recipe.stages:
        stage = Stage.from_pretrained(
            find_stage(runs.get(section.name) or _default_run(section, recipe_path))
        )
        stage.sampling = apply_sampling(stage.sampling, section.sampling)
        stage.check_settings(stage.sampling)
        stages[section.name] = stage
    pipeline = CascadePipeline.from_stages(stages)
    pipeline.save_pretrained(
        out,
        dtype=dtypes[dtype],
        card=card_text,
        extra_files={"pipeline.yaml": _read_text(recipe_path)},
    )
    return pipeline


def _default_run(section: PipelineStageSection, recipe_path: Path) -> Path:
    """Where `cascade train` puts the stage of a recipe unless told otherwise."""
    found = find_recipe(section.recipe, "stages", beside=recipe_path)
    return Path("runs") / load_stage_recipe(found).name


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error

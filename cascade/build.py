"""From checked recipes to the objects they describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.data.sources import ImageSource, open_source
from cascade.data.training_images import TrainingImages
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.recipe import SamplingSection, StageRecipe
from cascade.stage import SamplingSettings, Stage
from cascade.training.settings import TrainingSettings
from cascade.training.trainer import Trainer


def build_stage(recipe: StageRecipe, labels: LabelVocabulary | None) -> Stage:
    """Make the stage that a recipe describes, with new weights.

    Args:
        recipe: of the stage.
        labels: names of the classes, or None if the recipe has no label fields.
    """
    diffusion = recipe.diffusion.model_dump()
    schedule_keys = ("train_steps", "shift", "zero_terminal_snr")
    schedule = NoiseSchedule(
        diffusion.pop("schedule"), **{key: diffusion.pop(key) for key in schedule_keys}
    )
    condition = recipe.condition.model_dump(exclude={"labels"})
    return Stage.build(
        Contract(**recipe.contract.model_dump()),
        NoiseProcess(schedule, **diffusion),
        network=recipe.network.kind,
        network_options=recipe.network.model_dump(exclude={"kind"}),
        labels=labels,
        sampling=apply_sampling(SamplingSettings(), recipe.sampling),
        **condition,
    )


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
    """
    import torch

    source = open_source(recipe.data.path)
    vocabulary = build_vocabulary(recipe, source)
    torch.manual_seed(recipe.train.seed)
    stage = build_stage(recipe, vocabulary)
    images = TrainingImages(
        source,
        stage.contract,
        labels=vocabulary,
        seed=recipe.train.seed,
        **recipe.data.model_dump(exclude={"path"}),
    )
    settings = TrainingSettings(**recipe.train.model_dump())
    return Trainer(stage, images, out, settings, report=report)

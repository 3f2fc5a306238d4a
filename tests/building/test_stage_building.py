"""Stages and trainers as recipes describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch

from cascade.building.stages import build_stage
from cascade.building.training import build_trainer
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance
from cascade.data.sources import FolderSource
from cascade.errors import DataError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.space import Space


def classes(fields: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Two classes for every field."""
    return {field: [f"{field} a", f"{field} b"] for field in fields}


def no_classes(fields: Sequence[str]) -> Mapping[str, Sequence[str]]:
    pytest.fail("no stage without labels looks for class names")


def stage_recipe(*overrides: str, name: str = "tiny-16-to-32") -> StageRecipe:
    return load_stage_recipe(find_recipe(name, "stages"), overrides)


# ---- stages -------------------------------------------------------------------------------------


def test_every_value_of_a_recipe_reaches_the_stage():
    stage = build_stage(
        stage_recipe(
            "space.size_px=[32,48]",
            "space.range=[0,1000]",
            "space.unit=HU",
            "space.resize_kernel=area",
            "condition.labels.fields=[class,style]",
            "condition.labels.drop=0.15",
            "condition.low_resolution.size_px=[16,24]",
            "condition.low_resolution.quantised=false",
            "condition.low_resolution.augmentation_range=[0.1,0.4]",
            "condition.low_resolution.drop=0.25",
            "condition.low_resolution.blur_probability=0.5",
            "condition.low_resolution.degradation.probability=0.75",
            "condition.low_resolution.degradation.resize=[0.5,0.9]",
            "network.channels=[8,16]",
            "diffusion.schedule=linear",
            "diffusion.train_steps=77",
            "diffusion.shift=2.0",
            "diffusion.prediction=x0",
            "diffusion.weighting=min_snr",
            "diffusion.min_snr_gamma=3",
            "sampling.steps=9",
            "sampling.augmentation_level=0.2",
            "sampling.threshold=dynamic",
            "sampling.eta=0.5",
        ),
        classes,
    )
    process, schedule = stage.process, stage.process.schedule
    assert stage.space == Space(size_px=(32, 48), range=(0, 1000), unit="HU", resize_kernel="area")
    assert stage.conditions == (
        Labels(fields=classes(["class", "style"]), drop=0.15),
        LowResolution(
            size_px=(16, 24),
            quantised=False,
            augmentation_range=(0.1, 0.4),
            drop=0.25,
            blur_probability=0.5,
            degradation=Degradation(probability=0.75, resize=(0.5, 0.9)),
        ),
    )
    assert tuple(stage.network.backbone.config["block_out_channels"]) == (8, 16)
    assert (schedule.kind, schedule.train_steps, schedule.shift) == ("linear", 77, 2.0)
    assert (process.prediction, process.weighting, process.min_snr_gamma) == ("x0", "min_snr", 3)
    settings = stage.sampling
    assert (settings.steps, settings.augmentation_level, settings.threshold) == (9, 0.2, "dynamic")
    assert settings.options == {"eta": 0.5}


def test_the_values_of_a_grey_image_reach_the_stage():
    stage = build_stage(
        stage_recipe(
            "condition.low_resolution=null",
            "condition.labels=null",
            "condition.luminance={drop: 0.2, quantised: false, augmentation_range: [0, 0.3]}",
            "network.channels=[8,16]",
        ),
        no_classes,
    )
    assert stage.conditions == (
        Luminance(drop=0.2, quantised=False, augmentation_range=(0.0, 0.3)),
    )


def test_a_stage_without_labels_needs_no_labels_in_the_data(pictures):
    recipe = stage_recipe("condition.labels=null")
    assert [each.name for each in build_stage(recipe, no_classes).conditions] == ["low_resolution"]
    labels, _ = build_stage(stage_recipe(), FolderSource(pictures).vocabulary).conditions
    assert labels.classes == {"class": ["blue", "red", "red-dot"]}


# ---- trainers -----------------------------------------------------------------------------------


def test_data_without_the_recipe_s_labels_is_refused(pictures, tmp_path):
    with pytest.raises(DataError, match="no image has a label 'style'"):
        build_trainer(
            stage_recipe(f"data.path={pictures}", "condition.labels.fields=[style]"),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_the_seed_decides_the_first_weights(pictures, tmp_path):
    def first(name: str, seed: int) -> torch.Tensor:
        values = [f"data.path={pictures}", f"train.seed={seed}"]
        trainer = build_trainer(stage_recipe(*values), tmp_path / name)
        return torch.cat([p.detach().flatten() for p in trainer.state.stage.parameters()])

    assert first("a", 0).equal(first("b", 0))
    assert not first("a", 0).equal(first("c", 1))

"""Students: finds their teachers, and writes the recipes of their training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cascade.building.encoders import build_autoencoding
from cascade.chain import saved_names
from cascade.conditioning.condition import Vocabulary
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, DataError, RecipeError, WeightsError, nearest
from cascade.recipe.faults import fault_in
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_pipeline_recipe, load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.saving.components import weights_digest
from cascade.saving.pipelines import INDEX, has_weights, local_folder
from cascade.saving.stage_folder import stage_in
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training.objectives.consistency import Consistency
from cascade.training.objectives.objective import Objective
from cascade.training.objectives.table import make_objective
from cascade.training.objectives.teacher import check_can_teach

TRAINING = {  # a student starts near its goal, so it needs fewer images and smaller steps
    "objective": "consistency",
    "images": 200_000,
    "optimiser": "adamw",
    "learning_rate": 1e-4,
    "warmup_images": 2_000,
    "ema_decay": 0.999,
    "init_from": None,
    "checkpoint_every_images": 10_000,
    "sample_every_images": 20_000,
}
KEPT_SETTINGS = ("augmentation_level", "threshold", "percentile", "threshold_limit", "temperature")


@dataclass(frozen=True)
class TeacherPlace:
    """Where a trained stage lies.

    Attributes:
        folder: folder of the stage.
        recipe: file of the recipe that it was trained with; None if it is not known.
        previous: folder of the stage before it in its pipeline; None if there is none.
    """

    folder: Path
    recipe: Path | None
    previous: Path | None = None


def find_teacher(name: str) -> TeacherPlace:
    """Find a trained stage.

    Args:
        name: the folder of a run or of a stage, a stage of a pipeline such as `emoji-256/base`, or
            a pipeline of one stage.

    Raises:
        WeightsError: if there is no such stage; the message names the stages of the pipeline.
    """
    folder = stage_in(Path(name))
    if folder is not None:
        return TeacherPlace(folder, _recipe_of(folder))
    pipeline = _pipeline(name)
    if pipeline is not None:
        stages = _stages_in(pipeline)
        if len(stages) != 1:
            names = ", ".join(f"{name}/{each}" for each in stages)
            raise WeightsError(f"{name} is a pipeline; name one of its stages: {names}.")
        return _in_pipeline(pipeline, stages[0])
    before, _, stage = name.rstrip("/").rpartition("/")
    pipeline = _pipeline(before) if before else None
    if pipeline is None:
        raise WeightsError(
            f"no trained stage {name!r}: give the folder of a run or of a stage, or PIPELINE/STAGE "
            "such as emoji-256/base."
        )
    stages = _stages_in(pipeline)
    if stage not in stages:
        raise WeightsError(f"no stage {stage!r} in {before}: {nearest(stage, stages)}")
    return _in_pipeline(pipeline, stage)


def _pipeline(name: str) -> Path | None:
    """The folder of a saved pipeline."""
    folder = local_folder(name)
    return folder if folder is not None and has_weights(folder) else None


def _stages_in(pipeline: Path) -> list[str]:
    """The names of the stages of a pipeline, in order."""
    return saved_names(pipeline / "stages")


def _in_pipeline(pipeline: Path, stage: str) -> TeacherPlace:
    folders = [pipeline / "stages" / each for each in _stages_in(pipeline)]
    place = folders.index(pipeline / "stages" / stage)
    previous = folders[place - 1] if place else None
    return TeacherPlace(folders[place], _recipe_of(folders[place]), previous)


def _recipe_of(folder: Path) -> Path | None:
    """The recipe of a stage: in its run, or in its pipeline's recipe."""
    if (folder.parent / "recipe.yaml").is_file():
        return folder.parent / "recipe.yaml"
    pipeline = folder.parents[1] if len(folder.parents) > 1 else folder
    recipe = pipeline / "pipeline.yaml"
    if not (pipeline / INDEX).is_file() or not recipe.is_file():
        return None
    try:
        sections = load_pipeline_recipe(recipe).stages
        own = next(each for each in sections if each.name == folder.name)
        return find_recipe(own.recipe, "stages", beside=recipe)
    except (RecipeError, StopIteration):
        return None


def load_teacher(name: str) -> DiffusionStage:
    """Load a stage to learn from.

    Raises:
        WeightsError: if there is none, or it is damaged.
        ContractError: if it cannot teach, such as a student.
    """
    stage = load_stage(find_teacher(name).folder)
    if not isinstance(stage, DiffusionStage):
        raise ContractError(f"{name} is a {stage.kind} stage; only diffusion stages teach.")
    check_can_teach(stage)
    return stage


def distillation_recipe(
    teacher: str, steps: int, overrides: Sequence[str] = (), recipe: str | None = None
) -> tuple[StageRecipe, Path]:
    """Write the recipe with which a student of a stage is trained.

    Space, conditions, network, process and data are those of the teacher's recipe, and so are the
    settings that a student leaves open. The guidance of the teacher's settings goes inside.

    Args:
        teacher: see `find_teacher`.
        steps: number of steps in which the student samples.
        overrides: changes as `key=value`.
        recipe: name or file of the teacher's recipe; None for the one beside its weights.

    Returns:
        The recipe, and the file that it comes from.

    Raises:
        CascadeError: if the teacher or its recipe is missing, or the teacher cannot teach.
    """
    place = find_teacher(teacher)
    file = place.recipe if recipe is None else find_recipe(recipe, "stages")
    if file is None:
        raise RecipeError(
            f"the recipe of {teacher} is not known, so its data is not either; give the recipe."
        )
    sampling = load_teacher(teacher).sampling
    interval = sampling.guidance_interval
    changes: dict[str, Any] = {
        "train": TRAINING,
        "student": {
            "steps": steps,
            "teacher": teacher,
            "guidance": sampling.guidance,
            "guidance_interval": None if interval is None else list(interval),
        },
    }
    own = load_stage_recipe(file)
    changes["name"] = f"{own.name}-{steps}"
    changes["description"] = f"student of {teacher}, steps {steps}"
    settings = {name: getattr(sampling, name) for name in KEPT_SETTINGS}
    emptied = dict.fromkeys(type(own.sampling).model_fields)
    changes["sampling"] = {**emptied, **settings}
    if place.previous is not None:
        changes["condition"] = _generated_by(own, place.previous)
    return load_stage_recipe(file, overrides, changes), file


def _generated_by(recipe: StageRecipe, previous: Path) -> dict[str, Any]:
    """Let the stage before make the images that a condition trains on, if the recipe wants some."""
    return {
        name: {"generated": {"by": str(previous)}}
        for name, options in recipe.condition
        if (generated := getattr(options, "generated", None)) and generated.fraction > 0
    }


# ---- for training -------------------------------------------------------------------------------


def teacher_of(recipe: StageRecipe) -> DiffusionStage | None:
    """Load the teacher that a recipe names; None if it names none.

    Raises:
        CascadeError: if it is missing, or cannot teach.
    """
    if recipe.student is None or recipe.student.teacher is None:
        return None
    with fault_in("student.teacher"):
        return load_teacher(recipe.student.teacher)


def shared_vocabulary(vocabulary: Vocabulary, teacher: Stage | None) -> Vocabulary:
    """The classes of the data or, for a student, those of its teacher.

    Args:
        vocabulary: collects the class names of label fields from the data.
        teacher: the teacher; None for a stage without one.
    """
    if teacher is None:
        return vocabulary
    known = {field: names for each in teacher.conditions for field, names in each.classes.items()}

    def of_teacher(fields: Sequence[str]) -> Mapping[str, Sequence[str]]:
        in_data = vocabulary(fields)
        for field in fields:
            new = sorted(set(in_data[field]) - set(known.get(field, in_data[field])))
            if new:
                raise DataError(
                    f"the images have {field} {new[0]!r}, which the teacher does not know; keep "
                    f"the others only, by data.only={{{field}: [NAME, …]}}."
                )
        return {field: known.get(field, in_data[field]) for field in fields}

    return of_teacher


def with_digest(stage: Stage, teacher: Stage | None) -> None:
    """Note the hash of the teacher's weights in the student's contract."""
    student = stage.contract.student
    if teacher is not None and student is not None:
        hashed = replace(student, teacher_sha256=weights_digest(teacher))
        stage.contract = replace(stage.contract, student=hashed)


def build_objective(recipe: StageRecipe, teacher: DiffusionStage | None = None) -> Objective:
    """Make the objective of a recipe.

    Args:
        recipe: the recipe of the stage.
        teacher: the teacher that it names; None to check the recipe without weights.
    """
    if recipe.train.objective == "autoencoding":
        return build_autoencoding(recipe)
    student = recipe.student
    if student is None or recipe.train.objective != "consistency":
        return make_objective(recipe.train.objective)
    return Consistency(teacher, grid=student.grid, growth=student.growth)

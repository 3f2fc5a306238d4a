"""Students: finds their teachers, and writes the recipes of their training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade.building.encoders import build_autoencoding
from cascade.building.trained import find_place, find_stage
from cascade.conditioning.condition import Vocabulary
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, DataError, RecipeError
from cascade.recipe.faults import fault_in
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.reporting.words import counted
from cascade.saving.components import weights_digest
from cascade.saving.differences import as_typed
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training.objectives.consistency import Consistency
from cascade.training.objectives.objective import Objective
from cascade.training.objectives.table import make_objective
from cascade.training.objectives.teacher import check_can_teach, network_calls, whole_network_calls

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
KEPT_SETTINGS = (
    "augmentation_level",
    "denoise",
    "threshold",
    "percentile",
    "threshold_cap",
    "temperature",
    "keep_colours",
)


def load_teacher(name: str) -> DiffusionStage:
    """Load a stage to learn from.

    Raises:
        WeightsError: if there is none, or it is damaged.
        ContractError: if it cannot teach, such as a student.
    """
    stage = load_stage(find_stage(name))
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
        teacher: the name of a trained stage; see `cascade.building.trained.find_place`.
        steps: number of steps in which the student samples.
        overrides: changes as `key=value`; the student's steps and teacher cannot change.
        recipe: name or file of the teacher's recipe; None for the one beside its weights.

    Returns:
        The recipe, and the file that it comes from.

    Raises:
        CascadeError: if the teacher or its recipe is missing, the teacher cannot teach, or a change
            contradicts what was asked for.
    """
    place = find_place(teacher)
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
    result = load_stage_recipe(file, overrides, changes)
    _check_as_asked(result, {"steps": steps, "teacher": teacher})
    return result, file


def _check_as_asked(recipe: StageRecipe, asked: Mapping[str, Any]) -> None:
    """Check that changes left the student what it was asked for, which its name says too.

    Raises:
        RecipeError: naming the key that they changed.
    """
    for key, value in asked.items():
        other = getattr(recipe.student, key, None)
        if other != value:
            raise RecipeError(
                f"key 'student.{key}': the student was asked for with {as_typed(value)}, got "
                f"{as_typed(other)}; leave the key out."
            )


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
                    f"only the others with data.only={{{field}: [NAME, …]}}."
                )
        return {field: known.get(field, in_data[field]) for field in fields}

    return of_teacher


def with_digest(stage: Stage, teacher: Stage | None) -> None:
    """Note the hash of the teacher's weights in the student's contract."""
    student = stage.contract.student
    if teacher is not None and student is not None:
        hashed = replace(student, teacher_sha256=weights_digest(teacher))
        stage.contract = replace(stage.contract, student=hashed)


def student_warnings(stage: Stage, teacher: DiffusionStage | None) -> list[str]:
    """What speaks against a student: see `slow_student_warnings` and `astray_warnings`."""
    return slow_student_warnings(stage, teacher) + astray_warnings(stage, teacher)


def astray_warnings(stage: Stage, teacher: DiffusionStage | None) -> list[str]:
    """Say that a student of many steps learns at noise levels that its teacher does not know."""
    student = stage.contract.student
    if teacher is None or student is None:
        return []
    last, schedule = teacher.process.lowest_reliable_timestep, teacher.process.schedule
    lowest = {n: schedule.sampling_timesteps(n)[-1] for n in range(1, student.steps + 1)}
    if lowest[student.steps] >= last:
        return []
    most = max(n for n, timestep in lowest.items() if timestep >= last)
    return [
        f"a student in {counted(student.steps, 'step')} learns at timesteps from "
        f"{lowest[student.steps]} on, but its teacher hardly learned at any below {last}, so it "
        f"may mislead the student; {counted(most, 'step')} or fewer avoid that."
    ]


def slow_student_warnings(stage: Stage, teacher: DiffusionStage | None) -> list[str]:
    """Say that a student will be no faster than its teacher, or may be none; empty if it will be.

    A teacher that reuses features is as fast as all of its calls at worst, and as those that
    compute everything at best.
    """
    if teacher is None or not isinstance(stage, DiffusionStage) or stage.contract.student is None:
        return []
    own = network_calls(stage, stage.sampling)
    all_calls = network_calls(teacher, teacher.sampling)
    whole = whole_network_calls(teacher, teacher.sampling)
    if own < whole:
        return []
    reusing = f", {whole} of them whole (reuse {teacher.sampling.reuse})"
    return [
        f"the student will call its network {counted(own, 'time')} for an image and its teacher "
        f"calls it {counted(all_calls, 'time')}{reusing if whole < all_calls else ''}: it "
        f"{'will' if own >= all_calls else 'may'} be no faster; fewer steps would be."
    ]


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

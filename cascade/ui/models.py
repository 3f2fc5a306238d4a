"""The pipelines that a page offers, and what each of them can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cascade.errors import CascadeError, ContractError
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import UPSCALER, list_recipes, recipe_name
from cascade.recipe.yaml_files import read_yaml
from cascade.restoration.editing import Editing, check_can_edit
from cascade.saving.pipelines import has_weights
from cascade.tasks.table import find_task

TABS_OF_TASKS = {
    "upscale": "upscale",
    "colourise": "colourise",
    "draw": "generate",
    "generate": "generate",
    "edit": "edit",
    "restore": "restore",
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A pipeline, by what a page needs to know of it.

    Attributes:
        name: its name, as for `CascadePipeline.from_pretrained`.
        description: one line about it; may be empty.
        tabs: names of the tabs that can use it.
        scale: factor of all its upsamplers together.
        takes_text: whether it takes prompts.
        fields: class names by label field.
        fills: whether its first stage was trained with a mask, so that it takes each step once.
        is_student: whether its first stage is a student, which cannot go over its steps again.
    """

    name: str
    description: str = ""
    tabs: Sequence[str] = ()
    scale: int = 1
    takes_text: bool = False
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fills: bool = False
    is_student: bool = False

    @property
    def title(self) -> str:
        """Name and description in one line, for a menu."""
        name = Path(self.name).name
        return f"{name}: {self.description}" if self.description else name


def model_of(name: str, description: str = "") -> Model:
    """Find out what a pipeline can do.

    Raises:
        CascadeError: if it cannot be loaded.
    """
    pipeline = CascadePipeline.from_pretrained(name)
    contracts = pipeline.stages.contracts
    task = find_task(contracts)
    tabs = [TABS_OF_TASKS[task.name]] if task is not None and task.name in TABS_OF_TASKS else []
    last = pipeline.stages.last.space
    reads_bands = any(space.has_bands for space in contracts[0].image_spaces)
    if last.has_bands or not last.is_bounded or (tabs == ["restore"] and reads_bands):
        tabs = []
    elif tabs == ["generate"] and _can_edit(pipeline):
        tabs.append("edit")
    scale = 1
    for contract in contracts:
        scale *= contract.scale
    return Model(
        name=name,
        description=description,
        tabs=tabs,
        scale=scale,
        takes_text=any(contract.takes_text for contract in contracts),
        fields={} if pipeline.labels is None else pipeline.labels.fields,
        fills=contracts[0].fills,
        is_student=contracts[0].student is not None,
    )


def _can_edit(pipeline: CascadePipeline) -> bool:
    """Whether a pipeline can redraw at least whole pictures, as students can."""
    try:
        check_can_edit(pipeline.stages.contracts, Editing(), is_whole=True)
    except ContractError:
        return False
    return True


def bundled_models() -> list[Model]:
    """All bundled pipelines that have weights and can be used on the page."""
    models = []
    for path in list_recipes("pipelines"):
        if has_weights(path.parent):
            description = str(read_yaml(path).get("description", ""))
            models.append(model_of(recipe_name(path), description))
    models.sort(key=lambda model: model.name != UPSCALER)  # the page offers the first one
    return [model for model in models if model.tabs]


def models_for(pipeline: str | None) -> list[Model]:
    """The models of a page: the bundled ones, or the one that the user named.

    Raises:
        ContractError: if the page cannot use it.
        CascadeError: if it cannot be loaded.
    """
    if pipeline is None:
        return bundled_models()
    model = model_of(pipeline)
    if not model.tabs:
        raise ContractError(
            f"{pipeline} makes no images that the page could show; use it in Python."
        )
    return [model]


def try_models_for(folder: str) -> list[Model]:
    """The models of a run's folder; none if it has no weights yet that could be used."""
    try:
        return models_for(folder)
    except CascadeError:
        return []

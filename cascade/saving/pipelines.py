"""Finds saved pipelines: in a folder, among the bundled ones, or on the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cascade.errors import RecipeError, WeightsError, nearest
from cascade.recipe.finding import find_recipe, list_recipes, recipe_name
from cascade.saving.atomic import check_writable_folder
from cascade.saving.hub import download

INDEX = "model_index.json"
PATH_STARTS = ("/", ".", "~", "pipelines/")  # names that are not ids of the Hub begin so
DOUBT = "doubt.json"  # what the standard deviation over seeds says about errors
RECIPE = "pipeline.yaml"
PIPELINE_ENTRIES = (INDEX, "pipeline.py", RECIPE, "README.md", DOUBT)  # besides the stages
PIPELINE_FILE = '''"""Where diffusers finds the class of this folder: trust_remote_code=True."""

from cascade.diffusers_pipeline import DiffusersPipeline

__all__ = ["DiffusersPipeline"]
'''


def pipeline_folder(name: str, **options: Any) -> Path:
    """Find the folder of a saved pipeline, downloading it from the Hub if necessary.

    Args:
        name: a folder, a bundled pipeline such as `photo-x4`, or an id of the Hub such as
            `user/name`, in this order.
        options: options of `cascade.saving.hub.download`.

    Raises:
        WeightsError: if the pipeline does not exist, cannot be downloaded, or has no weights yet.
    """
    folder = local_folder(name)
    if folder is None and is_hub_id(name):
        return download(name, **options)
    if folder is None:
        bundled = [recipe_name(path) for path in list_recipes("pipelines")]
        raise WeightsError(
            f"no pipeline {name!r}, neither a folder nor bundled nor an id of the Hub; "
            f"{nearest(name, bundled)}"
        )
    if not has_weights(folder) and (folder / RECIPE).is_file():
        raise WeightsError(
            f"pipeline {name!r} has no weights yet: train its stages, then run "
            f"cascade chain {name}."
        )
    return folder


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id of the Hub, such as `user/name`."""
    return name.count("/") == 1 and not name.startswith(PATH_STARTS)


def has_weights(folder: Path) -> bool:
    """Whether a folder contains a saved pipeline."""
    return (folder / INDEX).is_file()


def local_folder(name: str) -> Path | None:
    """The folder of a saved or bundled pipeline, with or without weights.

    Returns:
        The folder, or None if there is none on this machine.

    Raises:
        WeightsError: if the name is that of a file.
    """
    folder = Path(name)
    try:
        if has_weights(folder) or (folder / "stages").is_dir():  # it may be damaged
            return folder
        if folder.is_file():
            return _folder_of_file(folder)
        return find_recipe(name, "pipelines").parent
    except RecipeError:
        return folder if folder.is_dir() else None
    except OSError:  # not a possible file name
        return None


def _folder_of_file(file: Path) -> Path:
    """The folder of a pipeline's recipe, or a bundled pipeline with the same name as the file."""
    if file.name == RECIPE:
        return file.parent
    bundled = {recipe_name(path): path.parent for path in list_recipes("pipelines")}
    if str(file) not in bundled:
        raise WeightsError(f"{file} is a file; give the folder or the name of a pipeline.")
    return bundled[str(file)]


def model_record(name: str, adapters: Sequence[tuple[str, float]] = ()) -> dict[str, Any]:
    """What pictures record of the model that made them.

    Of folders they record the last part alone, because pictures are passed on and paths are
    private.

    Args:
        name: a bundled pipeline, the folder of a saved one, or an id of the Hub.
        adapters: folders of adapters, each with the factor of its change.
    """
    folder = local_folder(name)
    is_folder = folder is not None and folder in (Path(name), Path(name).parent)
    record: dict[str, Any] = {"model": folder.resolve().name if folder and is_folder else name}
    if is_folder:
        record["model_is_folder"] = True
    if adapters:
        record["adapters"] = [[Path(each).resolve().name, factor] for each, factor in adapters]
    return record


def changeable_folder(name: str) -> Path:
    """Find the folder of a pipeline in order to change its files.

    Args:
        name: a bundled pipeline, or the folder of a saved one.

    Raises:
        WeightsError: if there is no such folder on this machine.
        OutputError: if the folder cannot be written to.
    """
    folder = local_folder(name)
    if folder is None:
        raise WeightsError(
            f"{name} is not a local folder and cannot be changed; save it with save_pretrained "
            "first."
        )
    check_writable_folder(folder)
    return folder


def card_folder(name: str) -> Path:
    """Find the folder of a pipeline in order to change its model card.

    Raises:
        WeightsError: if there is no such folder on this machine, or it holds no whole pipeline.
        OutputError: if the folder cannot be written to.
    """
    folder = changeable_folder(name)
    if not has_weights(folder):
        raise WeightsError(f"{name} is not a pipeline, so it has no model card; chain it first.")
    return folder


def write_index(folder: Path) -> None:
    """Write the files by which diffusers finds the class of a saved pipeline, and its parts."""
    index = {
        "_class_name": ["pipeline", "DiffusersPipeline"],
        "_diffusers_version": version("diffusers"),
        "stages": ["cascade.diffusers_pipeline", "ChainLoader"],
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / "pipeline.py").write_text(PIPELINE_FILE, encoding="utf-8")

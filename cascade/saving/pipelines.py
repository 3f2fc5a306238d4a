"""Where saved pipelines are: bundled, in a folder, or on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cascade.errors import RecipeError, WeightsError, nearest
from cascade.recipe.finding import find_recipe, list_recipes, recipe_name
from cascade.saving.atomic import check_writable_folder
from cascade.saving.hub import download

INDEX = "model_index.json"
PIPELINE_ENTRIES = (INDEX, "pipeline.py", "pipeline.yaml", "README.md", "stages")
PIPELINE_FILE = '''"""Where diffusers finds the class of this folder: trust_remote_code=True."""

from cascade import CascadePipeline

__all__ = ["CascadePipeline"]
'''
NO_ID = ("/", ".", "~", "pipelines/")  # how names of folders begin


def pipeline_folder(name: str, **options: Any) -> Path:
    """Where a saved pipeline is; one on the Hub is fetched.

    Args:
        name: a folder, a bundled pipeline such as `photo-x4`, or an id such as `user/name`; what is
            here goes first.
        options: for the Hub, as for `download`.

    Raises:
        WeightsError: if there is none, it cannot be fetched, or it has no weights yet.
    """
    folder = local_folder(name)
    if folder is None and name.count("/") == 1 and not name.startswith(NO_ID):
        return download(name, **options)
    if folder is None:
        bundled = [recipe_name(path) for path in list_recipes("pipelines")]
        raise WeightsError(
            f"no pipeline {name!r}, neither a folder nor bundled nor an id of the Hub: "
            f"{nearest(name, bundled)}"
        )
    if not has_weights(folder) and (folder / "pipeline.yaml").is_file():
        raise WeightsError(
            f"pipeline {name!r} has no weights yet: train its stages, then cascade chain {name}."
        )
    return folder


def has_weights(folder: Path) -> bool:
    """Whether a pipeline was saved in a folder."""
    return (folder / INDEX).is_file()


def local_folder(name: str) -> Path | None:
    """The folder of a saved or bundled pipeline, with weights or without; None if not here.

    Raises:
        WeightsError: if it is the name of a file.
    """
    folder = Path(name)
    try:
        if has_weights(folder) or (folder / "stages").is_dir():  # damaged perhaps, but meant
            return folder
        if folder.is_file():
            return _of_file(folder)
        return find_recipe(name, "pipelines").parent
    except RecipeError:
        return folder if folder.is_dir() else None
    except OSError:  # a name that no file can have
        return None


def _of_file(file: Path) -> Path:
    """The folder of a pipeline's recipe, or the bundled pipeline that has the name of a file."""
    if file.name == "pipeline.yaml":
        return file.parent
    bundled = {recipe_name(path): path.parent for path in list_recipes("pipelines")}
    if str(file) not in bundled:
        raise WeightsError(f"{file} is a file; give the folder of a pipeline, or its name.")
    return bundled[str(file)]


def changeable_folder(name: str) -> Path:
    """Where a pipeline's files are, to change them.

    Args:
        name: of a bundled pipeline, or a saved one's folder.

    Raises:
        WeightsError: if they are not here, but on the Hub perhaps.
        OutputError: if they cannot be changed.
    """
    folder = local_folder(name)
    if folder is None:
        raise WeightsError(
            f"{name} is not a folder here, so that it cannot be changed; save it with "
            "save_pretrained first."
        )
    check_writable_folder(folder)
    return folder


def write_index(folder: Path) -> None:
    """Write the files by which diffusers finds the class of a saved pipeline, and its parts."""
    from diffusers import __version__

    index = {
        "_class_name": ["pipeline", "CascadePipeline"],
        "_diffusers_version": __version__,
        "stages": ["cascade.chain", "StageChain"],
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / "pipeline.py").write_text(PIPELINE_FILE, encoding="utf-8")

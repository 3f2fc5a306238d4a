"""The validation images of a recipe: a set of their own, or a share of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cascade.building.spaces import opening_of
from cascade.data.joining import BESIDE
from cascade.data.overlap import first_of_files, shared_files
from cascade.data.remote import without_secrets
from cascade.data.source import ImageSource, SelectedSource, with_labels
from cascade.data.sources import open_source
from cascade.data.splitting import split_off
from cascade.errors import DataError, RecipeError
from cascade.recipe.faults import fault_in
from cascade.recipe.sections import StageRecipe
from cascade.reporting.words import counted
from cascade.stage import Stage

NAMED = 3  # images in a message


class OpenedData(NamedTuple):
    """The images of a recipe.

    Attributes:
        training: the images to train on.
        validation: the images to measure the validation loss on; None if the recipe has none.
    """

    training: ImageSource
    validation: ImageSource | None


def open_data(recipe: StageRecipe) -> OpenedData:
    """Open the images of a recipe, and divide them if it asks for a share.

    Raises:
        DataError: if there are no training images.
        RecipeError: if there are no validation images, although the recipe names some; or it stops
            early without any.
    """
    held_out = recipe.data.validation
    if held_out is None and recipe.train.patience > 0:
        with fault_in("train.patience"):
            raise RecipeError(
                "an early stop needs a validation loss; name validation images as data.validation."
            )
    source = open_source(**opening_of(recipe))
    if held_out is None:
        return OpenedData(source, None)
    with fault_in("data.validation", errors=(DataError,)):
        if not isinstance(held_out, str):
            return OpenedData(*split_off(source, held_out, recipe.data.split_by))
        return OpenedData(source, _open_own(recipe, held_out))


def _open_own(recipe: StageRecipe, path: str) -> ImageSource:
    """Open validation images as the training images are; a small set need not have every class."""
    opening = {**opening_of(recipe), "path": path, "only": None}
    pairing, inputs = opening.get("pairing"), recipe.data.validation_pairs
    if pairing is not None and pairing.path != BESIDE and inputs is None:
        raise RecipeError(
            "data.validation is a set of its own: name its inputs too, as data.validation_pairs, "
            "since those of data.pairs may have the same names and show something else."
        )
    if pairing is not None and inputs is not None:
        opening["pairing"] = pairing._replace(path=inputs)
    source = open_source(**opening)
    only = recipe.data.only
    return with_labels(source, only, all_names=False) if only else source


def overlap_warnings(data: OpenedData, recipe: StageRecipe) -> list[str]:
    """Look for validation images that are training images too, by their files.

    Returns:
        A line if there are some.

    Raises:
        RecipeError: if there are no others.
    """
    if data.validation is None:
        return []
    shared = shared_files(data.validation, data.training)
    if not shared:
        return []
    total = len(first_of_files(data.validation))
    pairs = ", ".join(f"{name} is {other}" for name, other in shared[:NAMED])
    more = ", …" if len(shared) > NAMED else ""
    if len(shared) >= total:
        with fault_in("data.validation"):
            raise RecipeError(
                f"all {total} validation images are training images too ({pairs}{more}); name "
                "others, or take a share of the images such as 0.1."
            )
    listing = ""
    if isinstance(recipe.data.validation, str):
        words = ["--validation", without_secrets(recipe.data.validation)]
        listing = f" {data.training.check_command(*words)} lists them all."
    return [
        f"{len(shared)} of {counted(total, 'validation image')} are training images too, which "
        f"makes the validation loss too low: {pairs}{more}.{listing}"
    ]


def usable_by(stage: Stage, source: ImageSource) -> tuple[ImageSource, list[str]]:
    """Leave out the validation images whose class no training image has.

    Returns:
        The images whose classes the stage knows, and a line if others were left out.

    Raises:
        RecipeError: if none is left.
    """
    classes = {field: set(names) for c in stage.conditions for field, names in c.classes.items()}
    if not classes:
        return source, []
    unknown: dict[str, int] = {}
    known = []
    for index in range(len(source)):
        labels = source.readable_labels(index)
        strange = [
            f"{field} {labels[field]!r}"
            for field, names in classes.items()
            if field in labels and labels[field] not in names
        ]
        if strange:
            unknown[strange[0]] = unknown.get(strange[0], 0) + 1
        else:
            known.append(index)
    if not unknown:
        return source, []
    return _left(source, known, list(unknown))


def _left(
    source: ImageSource, known: Sequence[int], names: Sequence[str]
) -> tuple[ImageSource, list[str]]:
    text = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    if not known:
        with fault_in("data.validation"):
            raise RecipeError(
                f"no training image has a class of the {len(source)} validation images ({text}); "
                "name images of the same classes, or split by another label."
            )
    count = len(source) - len(known)
    line = (
        f"{counted(count, 'validation image')} left out, because no training image has the class: "
        f"{text}."
    )
    return SelectedSource(source, known), [line]

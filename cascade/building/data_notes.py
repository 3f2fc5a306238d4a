"""Reports how the labels of a recipe's images fit, before a stage is trained on them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cascade.building.stages import build_conditions
from cascade.data.notes import check_share, notes_for
from cascade.data.remote import without_secrets
from cascade.data.source import ImageSource, SelectedSource
from cascade.recipe.sections import StageRecipe


class DataNotes:
    """Remembers which labels a stage asks for, and reports what is wrong with them.

    Args:
        source: the images.
        recipe: the recipe of the stage that is trained on them.
    """

    def __init__(self, source: ImageSource, recipe: StageRecipe) -> None:
        self._source = source
        self._recipe = recipe
        self._unlabelled: dict[str, list[str]] = {}
        self._reads_labels = bool(recipe.data.only)

    def vocabulary(self, fields: Sequence[str]) -> dict[str, list[str]]:
        """Collect class names as `ImageSource.vocabulary` does, and note which images have none."""
        survey = self._source.survey(fields)
        self._reads_labels = True
        for name, missing in survey.unlabelled.items():
            self._unlabelled.setdefault(name, []).extend(missing)
        return survey.names

    def lines(self, *, verbose: bool = False) -> list[str]:
        """One line per kind of fault, and one for the files that are not images.

        Args:
            verbose: whether to name every fault and file on a line of its own.

        Raises:
            DataError: if there are more faults than `data.max_broken_share` allows.
        """
        source, data = self._source, self._recipe.data
        notes = notes_for(source.notes, self._unlabelled if self._reads_labels else None)
        total = len(source.source if isinstance(source, SelectedSource) else source)
        check_share(notes, total, data.max_broken_share, command=self.command)
        return notes.lines(verbose=verbose, hint="; --verbose lists them")

    @property
    def command(self) -> str:
        """The command that lists everything."""
        data = self._recipe.data
        words = ["cascade", "data", "check", without_secrets(data.path)]
        if data.name_pattern is not None:
            words += ["--name-pattern", data.name_pattern]
        return shlex.join(words)


def describe_data(source: ImageSource, recipe: StageRecipe, *, verbose: bool = False) -> list[str]:
    """Report how labels and files fit a recipe; see `DataNotes.lines`.

    Raises:
        DataError: if there are too many faults, or no image has a label that the stage reads.
    """
    notes = DataNotes(source, recipe)
    build_conditions(recipe, notes.vocabulary)
    return notes.lines(verbose=verbose)

"""Reports how the labels of a recipe's images fit, before a stage is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

from cascade.data.notes import check_share, notes_for
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
        check_share(notes, total, data.max_broken_share, command=source.check_command())
        return notes.lines(verbose=verbose, hint="; --verbose lists them")

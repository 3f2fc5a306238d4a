"""Reports how the labels of a recipe's images fit, before a stage is trained on them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cascade.conditioning.condition import Condition
from cascade.data.notes import check_share, notes_for
from cascade.data.source import ImageSource, SelectedSource
from cascade.errors import DataError
from cascade.recipe.sections import StageRecipe
from cascade.reporting.words import counted

SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


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
        self._sided = 0  # images whose captions name a side

    def vocabulary(self, fields: Sequence[str]) -> dict[str, list[str]]:
        """Collect class names as `ImageSource.vocabulary` does, and note which images have none."""
        survey = self._source.survey(fields)
        self._reads_labels = True
        for name, missing in survey.unlabelled.items():
            self._unlabelled.setdefault(name, []).extend(missing)
        return survey.names

    def look_at(self, conditions: Sequence[Condition]) -> None:
        """Note which images have no text that a condition reads; these train with an empty one.

        Raises:
            DataError: if no image has such a text.
        """
        for each in conditions:
            if not each.takes_text:
                continue
            self._reads_labels = True
            names = " or ".join(each.annotation_fields)
            missing = []
            for index in range(len(self._source)):
                texts = each.of_annotations(self._source.readable_labels(index))
                if not texts:
                    missing.append(index)
                self._sided += any(SIDE.search(str(text)) for text in texts or ())
            if len(missing) == len(self._source):
                raise DataError(
                    f"no image has a {names}; write NAME.txt beside each NAME.png, or name a field "
                    f"of NAME.json or of metadata.csv by condition.{each.name}.fields; or train "
                    f"without it: condition.{each.name}=null.{self._source.notes.unread_tables}"
                )
            for index in missing:
                self._unlabelled.setdefault(self._source.name(index), []).append(names)

    def lines(self, *, verbose: bool = False) -> list[str]:
        """One line per kind of fault, for files that are no images, and for captions and mirroring.

        Args:
            verbose: whether to name every fault and file on a line of its own.

        Raises:
            DataError: if there are more faults than `data.max_broken_share` allows.
        """
        source, data = self._source, self._recipe.data
        notes = notes_for(source.notes, self._unlabelled if self._reads_labels else None)
        total = len(source.source if isinstance(source, SelectedSource) else source)
        check_share(notes, total, data.max_broken_share, command=source.check_command())
        lines = notes.lines(verbose=verbose, hint="; --verbose lists them")
        if self._sided and "x" in data.flip:
            lines.append(
                f'{counted(self._sided, "image")} with "left" or "right" in the caption, which '
                "mirroring contradicts; switch it off with data.flip=[]."
            )
        return lines

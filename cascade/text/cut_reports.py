"""Warnings about prompts that a text encoder does not read in full."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cascade.text.encoder import CutText

MOST_CHARACTERS = 200  # of a part of a prompt, in a warning
logger = logging.getLogger(__name__)


def report_cuts(cuts: Sequence[CutText]) -> None:
    """Warn about texts that are too long, or have unknown words or letters: one line for each."""
    lost = [each.lost for each in cuts if each.lost]
    if lost:
        subject = "the prompt is" if len(lost) == 1 else f"{len(lost):,} prompts are"
        where = "" if len(lost) == 1 else " of the first"
        logger.warning(
            "%s too long, so this end%s is cut off: %r", subject, where, _shortened(lost[0])
        )
    unknown = dict.fromkeys(word for each in cuts for word in each.unknown)
    if unknown:
        words = _shortened(", ".join(map(repr, unknown)))
        logger.warning("the text encoder does not know %s in the prompts", words)
    foreign = [each for each in cuts if each.scripts]
    if foreign:
        logger.warning(
            "the text encoder reads %s letters only, so the images will not follow %s: %s",
            " and ".join(foreign[0].scripts),
            "this prompt" if len(foreign) == 1 else f"{len(foreign):,} prompts",
            _shortened(", ".join(repr(each.kept) for each in foreign)),
        )


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"

"""Captions: the texts from which a pipeline makes images like held-out pictures.

Shapes: N pictures, M captions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.text import Text
from cascade.evaluation.real_pictures import RealPictures
from cascade.pipeline import CascadePipeline


@final
@dataclass(frozen=True)
class Captions:
    """The captions of pictures, by place.

    Attributes:
        phrasings: the phrasings of each picture's caption; the first one is the prompt. Empty for a
            picture without a caption.
        annotations: the other annotations of each picture.
        keys: name of each picture without suffix and folder.
    """

    phrasings: Sequence[tuple[str, ...]]
    annotations: Sequence[Mapping[str, str]]
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.phrasings)

    @cached_property
    def texts(self) -> list[str]:
        """The M different prompts; letter case makes no difference."""
        return list({each[0].lower(): each[0] for each in self.phrasings if each}.values())

    @cached_property
    def own(self) -> Tensor:
        """(N,) int64 place of each picture's prompt in `texts`, -1 if it has none."""
        places = {text.lower(): place for place, text in enumerate(self.texts)}
        return torch.tensor([places[p[0].lower()] if p else -1 for p in self.phrasings])

    @cached_property
    def rivals(self) -> Tensor:
        """(N, M) bool: captions of other contents, those that share no phrasing with the picture's.

        Two drawings of one thing have at least its plain name in common.
        """
        texts_of: dict[str, set[int]] = {}  # the prompts of all pictures with a phrasing
        for own, phrasings in zip(self.own.tolist(), self.phrasings, strict=True):
            for phrasing in phrasings:
                texts_of.setdefault(phrasing.lower(), set()).add(own)
        rivals = torch.ones(len(self), len(self.texts), dtype=torch.bool)
        for row, phrasings in zip(rivals, self.phrasings, strict=True):
            same = set().union(*(texts_of[each.lower()] for each in phrasings))
            row[sorted(same)] = False
        return rivals

    def judged(self, trained_on: Collection[str]) -> Tensor:
        """(N,) bool: pictures with a caption that a model was not trained on."""
        known = set(trained_on)
        return torch.tensor(
            [
                bool(phrasings) and key not in known
                for phrasings, key in zip(self.phrasings, self.keys, strict=True)
            ]
        )


def text_of(pipeline: CascadePipeline) -> Text | None:
    """The text condition of the first stage that has one; None if no stage takes text."""
    conditions = (each for contract in pipeline.stages.contracts for each in contract.conditions)
    return next((each for each in conditions if isinstance(each, Text)), None)


def read_captions(pictures: RealPictures, text: Text) -> Captions:
    """Read the captions of pictures.

    Args:
        pictures: the pictures.
        text: the condition that decides which annotations are captions.
    """
    annotations = [pictures.annotations(place) for place in range(len(pictures))]
    return Captions(
        phrasings=[text.of_annotations(each) for each in annotations],
        annotations=annotations,
        keys=[pictures.key(place).rpartition("/")[2] for place in range(len(pictures))],
    )


def contrasting(caption: str, own: str, words: Collection[str]) -> list[str]:
    """Write a caption with each of several words in place of its own one.

    Args:
        caption: the caption.
        own: the word that it should have, such as a drawing style.
        words: all words, `own` included.

    Returns:
        The captions, the given one first; empty if it does not have its own word.
    """
    pattern = re.compile(rf"(?<!\w){re.escape(own)}(?!\w)", re.IGNORECASE)
    if not pattern.search(caption):
        return []
    others = [pattern.sub(word, caption) for word in words if word != own]
    return [caption, *others]

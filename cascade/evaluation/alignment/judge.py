"""Judges images by the captions from which they were made, as figures of each image and as scores.

Shapes: N images or pictures, B images of them, E width of an embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from cascade.errors import DataError
from cascade.evaluation.alignment.captions import Captions, contrasting
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.alignment.retrieval import CHOICES, better_captions, retrieval_rate
from cascade.evaluation.figures import Score
from cascade.evaluation.intervals import mean_estimate

NEAREST = (1, 5)
CLIP_SCORE_SCALE = 100.0
FEWEST_CAPTIONS = 2
FEWEST_IMAGES = 2  # of a mean


@final
@dataclass(frozen=True)
class AlignmentJudge:
    """Judges images of which each was made from the caption of a picture.

    Attributes:
        model: embeds images and captions.
        captions: the captions of the held-out pictures.

    Raises:
        DataError: if there are fewer than 2 captions, or the model was trained on all pictures.
    """

    model: AlignmentModel
    captions: Captions

    def __post_init__(self) -> None:
        if len(self.captions.texts) < FEWEST_CAPTIONS:
            raise DataError(
                f"alignment needs at least {FEWEST_CAPTIONS} different captions, but the "
                f"held-out images have {len(self.captions.texts)}."
            )
        if not self._is_judged.any():
            raise DataError(
                f"{self.model.name} was trained on all of the held-out images with captions; "
                "measure alignment on other images."
            )

    @property
    def choices(self) -> int:
        """Number of captions from which each image chooses, its own one included."""
        fewest = int(self.captions.rivals.sum(dim=1)[self._is_judged].min())
        return min(CHOICES, 1 + fewest)

    def figure_names(self) -> list[str]:
        """The names of the figures of each image."""
        names = [f"R@{nearest}-{self.model.name}" for nearest in NEAREST if nearest < self.choices]
        names += [f"{field} accuracy-{self.model.name}" for field in self.model.contrasts]
        return [*names, f"CLIP score-{self.model.name}"] if self.model.has_clip_score else names

    def figures(self, embeddings: Tensor, places: Sequence[int]) -> dict[str, Tensor]:
        """Compute the figures of each image.

        Args:
            embeddings: (B, E) of the images.
            places: numbers of the pictures from whose captions they were made.

        Returns:
            (B,) float32 by name; NaN for images that are not judged.
        """
        at = torch.tensor(places)
        judged, own = self._is_judged[at], self.captions.own[at].clamp(min=0)
        texts, rivals = self._text_embeddings, self.captions.rivals[at]
        better = better_captions(embeddings, texts, own, rivals)
        count, choices = rivals.sum(dim=1).clamp(min=self.choices - 1), self.choices
        name = self.model.name
        figures = {
            f"R@{k}-{name}": retrieval_rate(better, count, choices=choices, nearest=k)
            for k in NEAREST
            if k < choices
        }
        for field in self.model.contrasts:
            figures[f"{field} accuracy-{name}"] = self._contrast(field, embeddings, places)
        if self.model.has_clip_score:
            near = (embeddings * texts[own]).sum(dim=1)
            figures[f"CLIP score-{name}"] = CLIP_SCORE_SCALE * near.clamp(min=0)
        return {key: each.where(judged, torch.nan).float() for key, each in figures.items()}

    def scores(self, embeddings: Tensor, real: Tensor) -> list[Score]:
        """Score images, with real pictures and chance beside them.

        Args:
            embeddings: (B, E) of images, made from the captions of the pictures in their order; if
                there are more images than pictures, the captions repeat.
            real: (N, E) of the held-out pictures.
        """
        count = len(self.captions)
        places = [number % count for number in range(len(embeddings))]
        ours = self.means(self.figures(embeddings, places))
        theirs = {s.name: s for s in self.means(self.figures(real, range(count)))}
        scores = []
        for score in ours:
            scores.append(score)
            if score.name in theirs:
                name = f"{score.name} of held-out images"
                scores.append(replace(theirs[score.name], name=name))
            if score.n_reference:
                scores.append(self._chance(score))
        return scores

    def means(self, figures: Mapping[str, Tensor]) -> list[Score]:
        """Average figures over the images that are judged; see `check` for those left out."""
        scores = []
        for name in self.figure_names():
            values = figures[name][~figures[name].isnan()]
            if len(values) >= FEWEST_IMAGES:
                estimate = mean_estimate(values.tolist())._asdict()
                basis = {"n": len(values), **self._basis(name)}
                scores.append(Score(name=name, better="higher", **estimate, **basis))
        return scores

    def check(self, name: str, count: int) -> None:
        """Check that a figure of the first `count` images has a mean, before they are made.

        Args:
            name: name of the figure, one of `figure_names`.
            count: number of images.

        Raises:
            DataError: if fewer than 2 of them have the figure.
        """
        measured = self._is_judged.tolist()
        if self._field(name) in self.model.contrasts:
            known = self._contrasting[self._field(name)]
            measured = [each and place in known for place, each in enumerate(measured)]
        have = sum(measured[number % len(measured)] for number in range(count))
        if have < FEWEST_IMAGES:
            word = (
                f" with a {self._field(name)}" if self._field(name) in self.model.contrasts else ""
            )
            raise DataError(
                f"{name} needs at least {FEWEST_IMAGES} images whose captions{word} "
                f"{self.model.name} was not trained on, but of the first {count} images {have} "
                "have one; give more images of each combination, or a larger budget."
            )

    def notes(self) -> list[str]:
        """Write the notes that the figures need."""
        notes = []
        trained_on = set(self.model.trained_on)
        count = sum(key in trained_on for key in self.captions.keys)
        if count:
            notes.append(
                f"{self.model.name} was trained on {count} of {len(self.captions)} held-out "
                "images; alignment is measured without them."
            )
        missing = sum(not each for each in self.captions.phrasings)
        if missing:
            notes.append(
                f"{missing} held-out images have no caption, so alignment leaves them out."
            )
        if self.choices < CHOICES:
            notes.append(
                f"each image chooses among {self.choices} captions instead of {CHOICES}, since "
                "the held-out images have no more captions of other content."
            )
        return notes

    def fingerprint(self) -> str:
        """Hash the model and the captions."""
        captions = json.dumps([self.captions.phrasings, self.captions.keys])
        basis = [self.model.fingerprint(), captions]
        return hashlib.sha256("\n".join(basis).encode()).hexdigest()

    @cached_property
    def _is_judged(self) -> Tensor:
        return self.captions.judged(self.model.trained_on)

    @cached_property
    def _text_embeddings(self) -> Tensor:
        return self.model.text_embeddings(self.captions.texts).cpu()

    def _contrast(self, field: str, embeddings: Tensor, places: Sequence[int]) -> Tensor:
        """(B,) 1 where the own word of a caption fits best, else 0; NaN without such a word."""
        values = torch.full((len(places),), torch.nan)
        for row, place in enumerate(places):
            candidates = self._contrasting[field].get(place)
            if candidates is not None:
                near = candidates @ embeddings[row]
                values[row] = float(near[0] > near[1:].max())
        return values

    @cached_property
    def _contrasting(self) -> dict[str, dict[int, Tensor]]:
        """Embeddings (K, E) of each caption with K words, its own first, by field and place."""
        embedded = {}
        for field, words in self.model.contrasts.items():
            texts = {}
            for place, phrasings in enumerate(self.captions.phrasings):
                own = words.get(self.captions.annotations[place].get(field, ""))
                candidates = (
                    contrasting(phrasings[0], own, words.values()) if own and phrasings else []
                )
                texts |= {place: candidates} if candidates else {}
            parts: tuple[Tensor, ...] = ()
            if texts:
                every = [text for candidates in texts.values() for text in candidates]
                parts = self.model.text_embeddings(every).cpu().split(len(words))
            embedded[field] = dict(zip(texts, parts, strict=True))
        return embedded

    def _field(self, name: str) -> str:
        """The field of a figure that compares words, such as `style`."""
        return name.removesuffix(f"-{self.model.name}").removesuffix(" accuracy")

    def _basis(self, name: str) -> dict[str, Any]:
        field = self._field(name)
        counts = {each: len(words) for each, words in self.model.contrasts.items()}
        counts |= {f"R@{k}": self.choices for k in NEAREST}
        reference = f"words for {field}" if field in self.model.contrasts else "captions"
        return {
            "reference": reference if field in counts else "their captions",
            "n_reference": counts.get(field, 0),
            "extractor": self.model.name,
            "resizing": self.model.resizing,
        }

    def _chance(self, score: Score) -> Score:
        nearest = next((k for k in NEAREST if score.name.startswith(f"R@{k}-")), 1)
        value = nearest / score.n_reference
        return Score(name=f"{score.name} by chance", value=value, n=score.n)

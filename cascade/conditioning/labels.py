"""Class labels as a condition: several fields, such as subject and style, each with its own names.

Shapes: B batch, F label fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from cascade.arguments import shown
from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition, Vocabulary
from cascade.conditioning.inputs import Request
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Classes, Slots
from cascade.diffusion.noise import SeededNoise, derive_seed
from cascade.errors import ContractError, nearest
from cascade.reporting.words import counted
from cascade.space import Space

OneLabels = Mapping[str, str] | str
LabelsLike = OneLabels | Sequence[OneLabels]
LIKENESS = 0.6  # of a class name that is suggested; at 0.5, "cat" is like "heart"


class LabelVocabulary:
    """The class names of each label field.

    Args:
        fields: class names by field, in the order of their indices.

    Raises:
        ContractError: if a name appears twice, also in different fields, or contains a comma:
            `parse` could not tell what it means.
    """

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self.fields = {name: list(names) for name, names in fields.items()}
        self._field_of: dict[str, str] = {}
        for label, names in self.fields.items():
            for name in names:
                if "," in name:
                    raise ContractError(f"class name {name!r} must not contain a comma.")
                if name in self._field_of:
                    raise ContractError(
                        f"class name {name!r} appears in both {self._field_of[name]!r} and "
                        f"{label!r}; names must differ."
                    )
                self._field_of[name] = label

    @property
    def sizes(self) -> list[int]:
        """Number of classes of each field."""
        return [len(names) for names in self.fields.values()]

    def encode(self, labels: Mapping[str, str]) -> list[int]:
        """Indices of an image's class names by field, one index per field; -1 for missing fields.

        Raises:
            ContractError: for an unknown field or name; the message offers the nearest.
        """
        for label, name in labels.items():
            if label not in self.fields:
                raise ContractError(f"unknown label field {label!r}: {nearest(label, self.fields)}")
            if name not in self.fields[label]:
                raise ContractError(
                    f"unknown {label} {name!r}: {_suggestion(name, self.fields[label])}"
                )
        return [
            names.index(labels[field]) if field in labels else -1
            for field, names in self.fields.items()
        ]

    def parse(self, text: str) -> dict[str, str]:
        """Read names of different fields, joined by commas: `cat-face` or `cat-face,noto`.

        Returns:
            Class names by field.

        Raises:
            ContractError: for an unknown name, or two names of the same field.
        """
        labels: dict[str, str] = {}
        for name in (part.strip() for part in text.split(",")):
            if name not in self._field_of:
                raise ContractError(f"unknown class {name!r}: {_suggestion(name, self._field_of)}")
            field = self._field_of[name]
            if field in labels:
                raise ContractError(f"{labels[field]!r} and {name!r} are both a {field}; give one.")
            labels[field] = name
        return labels

    def batch(self, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Indices (B, F) int64 of the class names by field of B images; see `encode`."""
        return torch.tensor([self.encode(each) for each in labels], dtype=torch.long)

    def decode(self, indices: Sequence[int]) -> dict[str, str]:
        """Class names by field of one image's indices; fields with index -1 are left out."""
        pairs = zip(self.fields.items(), indices, strict=True)
        return {field: names[index] for (field, names), index in pairs if index >= 0}


def _suggestion(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown class: names with this word, or similar ones."""
    names = list(names)
    with_word = [each for each in names if name in re.split(r"[\W_]+", each)]
    if with_word:
        return nearest(name, with_word, likeness=0.0)
    return nearest(name, names, likeness=LIKENESS)


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """The recipe section of labels; see `Labels`.

    Attributes:
        fields: label fields, such as `[class, style]`. Their class names come from the data.
    """

    fields: list[str]
    drop: float = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class Labels(Condition):
    """Class labels, embedded field by field.

    Attributes:
        fields: class names by field, in the order of their indices.
        drop: probability in [0, 1] that training hides all labels of an image, which
            classifier-free guidance needs. With several fields, each field is also hidden on its
            own with this probability.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "labels"
    input_name = "labels"
    recipe = LabelOptions

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    drop: float = 0.1

    @cached_property
    def vocabulary(self) -> LabelVocabulary:
        """Translates between names and indices."""
        return LabelVocabulary(self.fields)

    def check(self, space: Space) -> None:
        if not self.vocabulary.sizes or min(self.vocabulary.sizes) < 1:
            raise ContractError(
                f"labels need at least one field with at least one class, got {dict(self.fields)}."
            )

    def slots(self, space: Space) -> Slots:
        return Slots(vector=Classes(tuple(self.vocabulary.sizes)))

    @classmethod
    def of_recipe(cls, options: LabelOptions, vocabulary: Vocabulary) -> Labels:
        return cls(fields=vocabulary(options.fields), drop=options.drop)

    def config(self) -> dict[str, Any]:
        return {"fields": self.vocabulary.fields, "drop": self.drop}

    def facts(self) -> dict[str, str]:
        return {name: ", ".join(names) for name, names in self.vocabulary.fields.items()}

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        return self.vocabulary.fields

    def of_annotations(self, annotations: Mapping[str, str]) -> Tensor:
        return torch.tensor(self.vocabulary.encode(self._in_vocabulary(annotations)))

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        if self.name not in batch.conditions:
            raise ContractError("this stage is class-conditional, but the batch has no labels.")
        indices = batch.conditions[self.name]  # (B, F)
        drop = noise.uniform(1 + indices.shape[1]) < self.drop  # (B, 1 + F)
        hidden = drop[:, :1] if indices.shape[1] == 1 else drop[:, :1] | drop[:, 1:]
        return self._signals(torch.where(hidden, -1, indices))

    def of_request(self, request: Request) -> Signals:
        labels = request.inputs.get(self.input_name)
        indices = self._indices(request.count, labels)
        self._check(indices, request.count)
        return self._signals(indices.to(request.device))

    def completed(
        self, value: LabelsLike | None, seeds: Sequence[int], *, draw: bool
    ) -> list[dict[str, str]]:
        """Class names by field for each image.

        `value` is `{"class": "cat-face"}` or `"cat-face,noto"`, for all images or one for each.

        Raises:
            ContractError: for anything else, or an unknown field or name.
        """
        if value is None or isinstance(value, str | Mapping):
            value = [value or {}] * len(seeds)
        if not isinstance(value, Sequence) or not all(map(_is_names, value)):
            raise ContractError(
                "labels must be class names such as 'cat' or {'class': 'cat'}, for all images or "
                f"one for each; got {value if isinstance(value, list) else shown(value)}."
            )
        if len(value) != len(seeds):
            raise ContractError(
                f"got {counted(len(value), 'label')} for {counted(len(seeds), 'image')}; give one "
                "for all, or one for each."
            )
        completed = []
        for each, seed in zip(value, seeds, strict=True):
            labels = self.vocabulary.parse(each) if isinstance(each, str) else dict(each)
            self.vocabulary.encode(labels)
            completed.append((self._draw(seed) if draw else {}) | labels)
        return completed

    def _draw(self, seed: int) -> dict[str, str]:
        return {
            name: names[derive_seed(seed, "label", name) % len(names)]
            for name, names in self.vocabulary.fields.items()
        }

    def absent(self, signals: Signals) -> Signals:
        return self._signals(torch.full_like(signals.vectors[self.name], -1))

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Tensor | None:
        return batch.conditions.get(self.name)

    def _signals(self, indices: Tensor) -> Signals:
        return Signals(vectors={self.name: indices})

    def _indices(self, count: int, labels: Tensor | Sequence[Mapping[str, str]] | None) -> Tensor:
        """(B, F) int64 from indices, class names or None.

        A name or a field that only other stages know is left open.
        """
        if labels is None:
            return torch.full((count, len(self.vocabulary.sizes)), -1)
        if isinstance(labels, Tensor):
            return labels
        fields = self.vocabulary.fields
        own = [
            {f: name for f, name in each.items() if name in fields.get(f, ())} for each in labels
        ]
        return self.vocabulary.batch(own)

    def _in_vocabulary(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in labels.items() if name in self.vocabulary.fields}

    def _check(self, indices: Tensor, count: int) -> None:
        shape = (count, len(self.vocabulary.sizes))
        if tuple(indices.shape) != shape:
            raise ContractError(f"labels must be {shape}, got {tuple(indices.shape)}.")
        for place, (name, names) in enumerate(self.vocabulary.fields.items()):
            if indices[:, place].amin() < -1 or indices[:, place].amax() >= len(names):
                raise ContractError(f"indices of {name} must be from -1 to {len(names) - 1}.")


def _is_names(labels: Any) -> bool:
    """Whether these are the names of one image: a text, or texts by field."""
    if isinstance(labels, Mapping):
        return all(isinstance(each, str) for pair in labels.items() for each in pair)
    return isinstance(labels, str)

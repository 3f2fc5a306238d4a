"""Class labels: several fields (such as subject and style), each with its own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cascade.errors import ContractError, nearest


class LabelVocabulary:
    """Names of the classes of each label field.

    Args:
        fields: for each field its class names, in the order of their indices.

    Raises:
        ContractError: if a name stands twice or holds a comma, so that it would not say what is
            meant.
    """

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self.fields = {field: list(names) for field, names in fields.items()}
        seen: dict[str, str] = {}
        for field, names in self.fields.items():
            for name in names:
                if "," in name:
                    raise ContractError(f"class name {name!r} must not hold a comma.")
                if name in seen:
                    raise ContractError(
                        f"class name {name!r} stands in both {seen[name]!r} and {field!r}; "
                        "names must differ."
                    )
                seen[name] = field
        self._field_of = seen

    @property
    def sizes(self) -> list[int]:
        """Number of classes of each field."""
        return [len(names) for names in self.fields.values()]

    def encode(self, labels: Mapping[str, str]) -> list[int]:
        """Indices of an image's labels, one per field; -1 for a field that is not given.

        Raises:
            ContractError: for an unknown field or name; the message offers the nearest.
        """
        for field, name in labels.items():
            if field not in self.fields:
                raise ContractError(f"unknown label field {field!r}: {nearest(field, self.fields)}")
            if name not in self.fields[field]:
                raise ContractError(
                    f"unknown {field} {name!r}: {nearest(name, self.fields[field])}"
                )
        return [
            names.index(labels[field]) if field in labels else -1
            for field, names in self.fields.items()
        ]

    def parse(self, text: str) -> dict[str, str]:
        """Read `cat-face` or `cat-face,noto`: names of different fields, joined by commas.

        Raises:
            ContractError: for an unknown name, or two names of one field.
        """
        labels: dict[str, str] = {}
        for name in (part.strip() for part in text.split(",")):
            if name not in self._field_of:
                raise ContractError(f"unknown class {name!r}: {nearest(name, self._field_of)}")
            field = self._field_of[name]
            if field in labels:
                raise ContractError(f"{labels[field]!r} and {name!r} are both a {field}; give one.")
            labels[field] = name
        return labels

    def batch(self, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Indices of a batch: (B, F) int64."""
        return torch.tensor([self.encode(each) for each in labels], dtype=torch.long)

    def decode(self, indices: Sequence[int]) -> dict[str, str]:
        """Names of one image's indices; fields at -1 are left out."""
        pairs = zip(self.fields.items(), indices, strict=True)
        return {field: names[index] for (field, names), index in pairs if index >= 0}

"""What is kept of the pictures that one combination of settings made, and the file it is kept in.

Shapes: N images, F features, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade.saving.atomic import atomic_file

MOST_SHOWN = 8
VALUE = "value: "


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Images as a sweep sees them, those of the first seed first.

    Attributes:
        features: (N, F) float32.
        real_features: (N, F) float32 of the originals; (0, F) where there are none.
        seconds: (N,) that each took.
        values: figures (N,) of each image beside its original, by name.
        shown: the first images, (8 or fewer, 3, H, W) uint8.
    """

    features: Tensor
    real_features: Tensor
    seconds: Tensor
    values: dict[str, Tensor]
    shown: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def first(self, count: int) -> Seen:
        """Of the first so many images only."""
        return Seen(
            features=self.features[:count],
            real_features=self.real_features[:count],
            seconds=self.seconds[:count],
            values={name: each[:count] for name, each in self.values.items()},
            shown=self.shown[:count],
        )

    def followed_by(self, more: Seen) -> Seen:
        """With those of the next seeds."""
        return Seen(
            features=torch.cat([self.features, more.features]),
            real_features=torch.cat([self.real_features, more.real_features]),
            seconds=torch.cat([self.seconds, more.seconds]),
            values={
                name: torch.cat([each, more.values[name]]) for name, each in self.values.items()
            },
            shown=torch.cat([self.shown, more.shown])[:MOST_SHOWN],
        )

    def save(self, file: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OutputError: if the file cannot be written.
        """
        tensors = {
            "features": self.features,
            "real_features": self.real_features,
            "seconds": self.seconds,
            "shown": self.shown,
            **{VALUE + name: each for name, each in self.values.items()},
        }
        with atomic_file(file) as temporary:
            save_file({name: each.contiguous() for name, each in tensors.items()}, temporary)


def load_seen(file: Path) -> Seen | None:
    """Read what was saved; None if there is nothing, or it is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        values = {
            name.removeprefix(VALUE): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(VALUE)
        }
        return Seen(values=values, **tensors)
    except (OSError, SafetensorError, TypeError):
        return None

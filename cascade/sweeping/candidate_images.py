"""The features and figures that a sweep keeps of one candidate's images, and their files.

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

MOST_SAMPLES = 8
FIGURE = "figure: "  # prefix of figure names in files


@dataclass(frozen=True, kw_only=True)
class CandidateImages:
    """The images of one candidate in the order of their seeds: features and figures, not pixels.

    Attributes:
        features: (N, F) float32.
        real_features: (N, F) float32 of the originals; (0, F) if there are no originals.
        seconds: (N,) time of each image in seconds, of the processors on a CPU, else wall time.
        figures: (N,) figures of each image compared with its original, by figure name.
        samples: (8 or fewer, 3, H, W) uint8, the first images.
    """

    features: Tensor
    real_features: Tensor
    seconds: Tensor
    figures: dict[str, Tensor]
    samples: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def first(self, count: int) -> CandidateImages:
        """The first images only."""
        return CandidateImages(
            features=self.features[:count],
            real_features=self.real_features[:count],
            seconds=self.seconds[:count],
            figures={name: values[:count] for name, values in self.figures.items()},
            samples=self.samples[:count],
        )

    def followed_by(self, more: CandidateImages) -> CandidateImages:
        """Join these images with those of the next seeds."""
        return CandidateImages(
            features=torch.cat([self.features, more.features]),
            real_features=torch.cat([self.real_features, more.real_features]),
            seconds=torch.cat([self.seconds, more.seconds]),
            figures={
                name: torch.cat([values, more.figures[name]])
                for name, values in self.figures.items()
            },
            samples=torch.cat([self.samples, more.samples])[:MOST_SAMPLES],
        )

    def save(self, file: Path) -> None:
        """Write the images to a file; an interruption leaves no incomplete file.

        Raises:
            OutputError: if the file cannot be written.
        """
        tensors = {
            "features": self.features,
            "real_features": self.real_features,
            "seconds": self.seconds,
            "samples": self.samples,
            **{FIGURE + name: values for name, values in self.figures.items()},
        }
        with atomic_file(file) as temporary:
            save_file({name: each.contiguous() for name, each in tensors.items()}, temporary)


def load_candidate_images(file: Path) -> CandidateImages | None:
    """Read the file that `save` wrote; None if it is missing or damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        figures = {
            name.removeprefix(FIGURE): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(FIGURE)
        }
        return CandidateImages(figures=figures, **tensors)
    except (OSError, SafetensorError, TypeError):
        return None

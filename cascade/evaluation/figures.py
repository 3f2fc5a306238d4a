"""Figures: a `Score` is one number with its basis, a `Measured` is all numbers of one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cascade.evaluation.tables import rounded

Better = Literal["lower", "higher", "nearer to 0", "nearer to 1", ""]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure with its basis.

    Attributes:
        name: name of the figure, such as `FD-EffLite0`.
        value: the measured value.
        n: number of images that it was measured on.
        reference: name of the images that they were compared with; empty for no comparison.
        n_reference: number of images of the reference.
        extractor: name of the extractor of the compared features; empty if pixels were compared.
        resizing: how images were resized before the comparison; empty if they were not.
        low: lower end of the interval of 95 %; None if there is no interval.
        high: upper end of the interval.
        better: which values are better; empty if neither direction is.
    """

    name: str
    value: float
    n: int
    reference: str = ""
    n_reference: int = 0
    extractor: str = ""
    resizing: str = ""
    low: float | None = None
    high: float | None = None
    better: Better = ""

    def text(self) -> str:
        """Write the value and its interval, rounded for tables."""
        if self.low is None or self.high is None:
            return rounded(self.value)
        return f"{rounded(self.value)} [{rounded(self.low)}, {rounded(self.high)}]"

    def head(self) -> str:
        """Write the name, and which values are better."""
        return f"{self.name}, {self.better}" if self.better else self.name

    def basis(self) -> str:
        """Write numbers of images, reference, extractor and resizing."""
        parts = [f"n = {self.n}"]
        if self.reference:
            parts.append(f"against {self.n_reference} {self.reference}")
        parts += [part for part in (self.extractor, self.resizing) if part]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of one subject: a stage alone, the whole chain, or a baseline.

    Attributes:
        subject: name of what was measured, such as `upsampler, alone`.
        input: its input in words, such as `noise`.
        size_px: longer side of its images in pixels.
        seconds_per_image: wall time of an image, stages before it included; None for real pictures.
        scores: the figures.
    """

    subject: str
    input: str
    size_px: int
    seconds_per_image: float | None
    scores: tuple[Score, ...]

    def score(self, name: str) -> Score | None:
        """Find the first figure whose name starts with `name`, such as `FD`; None if missing."""
        return next((each for each in self.scores if each.name.startswith(name)), None)

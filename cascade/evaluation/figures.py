"""Figures: a `Score` is one number with its basis, a `Measured` is all numbers of one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cascade.evaluation.tables import rounded

Better = Literal["lower", "higher", "nearer to 0", "nearer to 1", ""]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure.

    Attributes:
        name: such as `FD-EffLite0`.
        value: of it.
        n: number of images that it was measured on.
        reference: what they were compared with, in words; empty for nothing.
        n_reference: number of images of the reference.
        extractor: whose features were compared; empty for pixels.
        resizing: of the images before they were compared, in words; empty for none.
        low: lower end of the interval of 95 %; None if there is no interval.
        high: upper end.
        better: which way is better.
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
        """Value and interval, rounded."""
        if self.low is None or self.high is None:
            return rounded(self.value)
        return f"{rounded(self.value)} [{rounded(self.low)}, {rounded(self.high)}]"

    def head(self) -> str:
        """Name, and which way is better."""
        return f"{self.name}, {self.better}" if self.better else self.name

    def basis(self) -> str:
        """Number of images, reference, extractor and resizing, as one sentence."""
        parts = [f"n = {self.n}"]
        if self.reference:
            parts.append(f"against {self.n_reference} {self.reference}")
        parts += [part for part in (self.extractor, self.resizing) if part]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of one subject: a stage alone, the whole chain, or a baseline.

    Attributes:
        subject: what was measured, such as `upsampler, alone`.
        given: what its input was, in words.
        size_px: longer side of its images.
        seconds_per_image: wall time, all included; None where nothing was made.
        scores: the figures.
    """

    subject: str
    given: str
    size_px: int
    seconds_per_image: float | None
    scores: tuple[Score, ...]

    def score(self, name: str) -> Score | None:
        """The first figure whose name begins so, such as `FD`; None if there is none."""
        return next((each for each in self.scores if each.name.startswith(name)), None)

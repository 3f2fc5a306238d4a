"""Student: how a distilled stage samples, which its training has fixed.

A student of k steps maps an image at the upper end of one of k segments of the noise levels to the
picture with which one DDIM step reaches the lower end (Heek et al. 2024, arXiv 2403.06807). It has
learned no other step, and more of them would make its images worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from cascade.arguments import real_number, whole_number
from cascade.errors import ContractError
from cascade.sampling.guidance import Guidance
from cascade.sampling.samplers.table import default_options
from cascade.sampling.settings import SamplingSettings, as_interval

SAMPLER = "ddim"  # with eta 0 and steps between the ends of the segments


@dataclass(frozen=True, kw_only=True)
class Student:
    """What training has fixed in a student.

    Attributes:
        steps: number of steps in which it samples, at least 1.
        guidance: scale of the guidance that it has learned, at least 0; 1 for none.
        guidance_interval: lowest and highest sigma / alpha at which that guidance was applied; None
            for all.
        teacher: name of the stage that it learned from; empty if it learned from images alone.
        teacher_sha256: hash of the teacher's weights; empty if not known.

    Raises:
        ContractError: if a value is out of range, or there is guidance without a teacher.
    """

    steps: int
    guidance: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    teacher: str = ""
    teacher_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", whole_number("steps", self.steps, low=1))
        object.__setattr__(self, "guidance", real_number("guidance", self.guidance))
        object.__setattr__(self, "guidance_interval", as_interval(self.guidance_interval))
        if self.guide.scale < 0:
            raise ContractError(
                f"guidance inside a student must be at least 0, got {self.guidance}; 0 leaves out "
                "the conditions, and 1 is no guidance."
            )
        if self.guide.scale != 1 and not self.teacher:
            raise ContractError(
                f"guidance {self.guidance} inside a student needs a teacher; name one, or use "
                "guidance 1."
            )

    @property
    def guide(self) -> Guidance:
        """Scale and interval of the guidance that it has learned."""
        return Guidance(self.guidance, self.guidance_interval)

    @property
    def text(self) -> str:
        """What it is, in words: `student of emoji-1024/base, 4 steps`."""
        origin = f"student of {self.teacher}" if self.teacher else "consistency model"
        guided = "" if self.guidance == 1 else f", guidance {self.guidance:g} inside"
        return f"{origin}, {self._count}{guided}"

    @property
    def _count(self) -> str:
        return "1 step" if self.steps == 1 else f"{self.steps} steps"

    def fitted(self, settings: SamplingSettings) -> SamplingSettings:
        """Return settings in which only what a student leaves open is kept."""
        return replace(
            settings,
            sampler=SAMPLER,
            steps=self.steps,
            guidance=1.0,
            guidance_interval=None,
            reuse=1,
            options={},
        )

    def check(self, settings: SamplingSettings) -> None:
        """Check that the student can sample with these settings.

        Raises:
            ContractError: naming the setting, and the value that it must have.
        """
        if settings.steps != self.steps:
            other = f"; for other numbers take its teacher {self.teacher}" if self.teacher else ""
            raise ContractError(
                f"this student was trained for steps {self.steps} and no others, got "
                f"{settings.steps}{other}."
            )
        if settings.sampler != SAMPLER:
            raise ContractError(
                f"a student samples with the sampler {SAMPLER}, as it was trained, got "
                f"{settings.sampler}."
            )
        for name, usual in default_options(SAMPLER).items():
            if settings.value(name) != usual:
                raise ContractError(
                    f"a student samples with {name} {usual}, as it was trained, got "
                    f"{settings.value(name)}."
                )
        if settings.reuse != 1:
            raise ContractError(
                f"a student samples with reuse 1, as it was trained, got {settings.reuse}."
            )
        if settings.guidance != 1 and self.guidance != 1:
            raise ContractError(
                f"this student has guidance {self.guidance:g} inside, got guidance "
                f"{settings.guidance:g} on top; use guidance 1."
            )

    # ---- saving ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The student as plain values for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        interval = self.guidance_interval
        return {**values, "guidance_interval": None if interval is None else list(interval)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Student | None:
        """Make a student from the values of `to_dict`; None makes None."""
        return None if values is None else cls(**values)

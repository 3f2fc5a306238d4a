"""Generation: which pictures to generate, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade.chain import StageChain
from cascade.chain_settings import sampling_of
from cascade.errors import ContractError
from cascade.imaging.credentials import Signer, check_signer
from cascade.imaging.picture_series import digest
from cascade.imaging.reading import read_image
from cascade.reporting.words import counted
from cascade.sampling.overrides import Overrides
from cascade.stage import stages_digest


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What to generate; see `CascadePipeline.__call__`.

    Attributes:
        num_images: number of pictures; of each prompt, if there are prompts.
        prompts: texts to draw; empty for none.
        like: file of a picture to vary; None for none.
        negative_prompt: text from which guidance pushes all pictures away; None for none.
        seed: whole number for the first picture; the others count up from it; None for a random
            one.
        classes: class names of pictures, such as `cat-face,noto`, which take turns over the
            pictures; empty to draw them.
        overrides: changes to the stages' sampling settings.
        batch_size: number of pictures at a time; None for the default of `CascadePipeline`.
        adapters: folders of the pipeline's adapters, each with the factor of its change; pictures
            record them.
        signer: who signs the pictures; None for nobody.
        metadata: whether pictures and sheet hold the mark and how they were made.
        keep_intermediates: whether to write the pictures of the earlier stages too.
        stop_at: name of the last stage to run, whose pictures are written; None for the last one.
        overwrite: whether to replace the pictures in the folder instead of counting on.
        resume: whether to complete the last series in the folder, if it was interrupted.

    Raises:
        ContractError: if two of these contradict each other.
    """

    num_images: int = 1
    prompts: Sequence[str] = ()
    like: Path | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    classes: Sequence[str] = ()
    overrides: Overrides = field(default_factory=Overrides)
    batch_size: int | None = None
    adapters: Sequence[tuple[str, float]] = ()
    signer: Signer | None = None
    metadata: bool = True
    keep_intermediates: bool = False
    stop_at: str | None = None
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.overwrite and self.resume:
            raise ContractError(
                "overwrite begins a new series and resume completes the last one; choose one."
            )
        check_signer(self.signer, metadata=self.metadata)
        if len(self.classes) > self.total:
            raise ContractError(
                f"{counted(len(self.classes), 'class', 'classes')} cannot alternate over "
                f"{counted(self.total, 'image')}; generate more images or name fewer classes. "
                "Join the labels of one image by commas, such as cat-face,noto."
            )

    @property
    def total(self) -> int:
        """Number of pictures of all prompts together."""
        return self.num_images * max(1, len(self.prompts))

    @cached_property
    def picture(self) -> Tensor | None:
        """The picture to vary, (1, 3, H, W) in [-1, 1]; None without one.

        Raises:
            DataError: if it cannot be read.
        """
        return None if self.like is None else read_image(self.like)[None]

    def request(self, name: str, run: StageChain) -> dict[str, Any]:
        """What decides the pictures, as plain values.

        Args:
            name: name of the pipeline.
            run: the stages that run, with their sampling settings.
        """
        stages = dict(run.items())
        return {
            "pipeline": name,
            "weights": stages_digest(stages.values()),
            "prompts": digest(self.prompts),
            "negative_prompt": self.negative_prompt or "",
            "like": None if self.like is None else digest([self.like.read_bytes().hex()]),
            "num_images": self.num_images,
            "seed": self.seed,
            "classes": list(self.classes),
            "settings": sampling_of(stages.items()),
            "keep_intermediates": self.keep_intermediates,
            "stop_at": self.stop_at,
            "signer": self.signer and self.signer.fingerprint,
            "metadata": self.metadata,
        }

    def arguments(self, places: Sequence[int]) -> dict[str, Any]:
        """The arguments of the call of a pipeline that makes the pictures at some places."""
        classes = self.classes
        return {
            "prompt": [self.prompt(i) for i in places] if self.prompts else None,
            "negative_prompt": self.negative_prompt,
            "num_images": len(places),
            "like": self.picture,
            "labels": [classes[i % len(classes)] for i in places] if classes else None,
            "overrides": self.overrides,
            "batch_size": self.batch_size,
            "keep_intermediates": self.keep_intermediates,
            "stop_at": self.stop_at,
            "output_type": "pt",
        }

    def prompt(self, place: int) -> str:
        """The prompt of the picture at a place of the series; empty without prompts."""
        return self.prompts[place // self.num_images] if self.prompts else ""

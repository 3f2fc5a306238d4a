"""The settings of objects that map over batches, checked before they travel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from cascade.arguments import flag, shown
from cascade.bulk.jobs import ImageFormat, PageChoice
from cascade.call_arguments import field_names
from cascade.data.file_reading import FileReading
from cascade.errors import ContractError
from cascade.familiar_names import ARGUMENTS, check_arguments
from cascade.imaging.picture_reading import Truncated
from cascade.sampling.settings import SETTINGS, SamplingSettings, setting_names

OF_FILES = (  # fields of `Request` that change the results of files
    "image_format",
    "metadata",
    "overwrite",
    "range",
    "pages",
    "truncated",
    "axis",
    "nodata",
)
CHOICES = {"image_format": ImageFormat, "pages": PageChoice, "truncated": Truncated}
FLAGS = ("metadata", "overwrite")
PER_PICTURE = ("inputs", "hints")  # they belong to one picture


@dataclass(frozen=True)
class MapperSettings:
    """Settings by what reads them.

    Attributes:
        own: fields of `Upscaling`, `Colouring` or `Restoration`.
        files: fields of `Request`.
        sampling: sampling settings, as in a call of a pipeline.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, kind: type, settings: Mapping[str, Any]) -> MapperSettings:
        """Split settings and check what can be checked without the model.

        Args:
            kind: `Upscaling`, `Colouring` or `Restoration`.
            settings: what a user gave, by name.

        Raises:
            ContractError: for an unknown name, or a value that no model could take.
        """
        own = [name for name in field_names(kind) if name not in PER_PICTURE]
        check_settings(settings, [*own, *OF_FILES])
        split = cls(
            own={name: each for name, each in settings.items() if name in own},
            files={name: each for name, each in settings.items() if name in OF_FILES},
            sampling={
                name: each for name, each in settings.items() if name not in (*own, *OF_FILES)
            },
        )
        kind(**split.own)
        _check_files(split.files)
        return split


def _check_files(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        choices = get_args(CHOICES.get(name))
        if choices and value not in (*choices, None):
            raise ContractError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}.")
        if name in FLAGS:
            flag(name, value)
    FileReading(*(settings.get(name) for name in FileReading._fields)).check_values()


def check_settings(settings: Mapping[str, Any], own: Sequence[str]) -> None:
    """Check that all settings exist, and each value of a sampling setting by itself.

    Args:
        settings: what a user gave, by name.
        own: the names that are no sampling settings.

    Raises:
        ContractError: for an unknown name, or a value that no stage could take.
    """
    samplers = [each for each in _values(settings.get("sampler")) if each is not None]
    check_arguments(settings, [*own, *setting_names(samplers)], ARGUMENTS)
    for name, value in settings.items():
        if name in SETTINGS and name not in own:
            for each in _values(value, is_interval=name == "guidance_interval"):
                SamplingSettings().changed(**{name: each})


def _values(value: Any, *, is_interval: bool = False) -> Iterable[Any]:
    """The values of a setting: of all stages, or of each by its place or name."""
    if isinstance(value, Mapping):
        return list(value.values())
    is_list = isinstance(value, list | tuple)
    is_list = is_list and not (is_interval and all(isinstance(each, int | float) for each in value))
    return value if is_list else [value]

"""What a picture says about how it was made: model, seed, settings, mark, and the command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.chain import saved_names
from cascade.errors import CascadeError, ContractError
from cascade.imaging.credentials import Manifest, read_manifest
from cascade.imaging.marks import SOURCE_TYPE, mark_of
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.opening import format_of, opened_image, read_bytes
from cascade.imaging.picture_writing import recorded_settings
from cascade.sampling.settings import UNSAID
from cascade.saving.components import read_json
from cascade.saving.pipelines import local_folder
from cascade.saving.stage_folder import CONFIG


@dataclass(frozen=True)
class Inspection:
    """How a picture was made.

    Attributes:
        record: the settings that Cascade recorded in it; empty if there are none.
        mark: its IPTC source type, system and version by their names; empty if there are none.
        manifest: what its content credentials say and whether they hold; None if there are none.
        unchecked: why they could not be checked; empty if they were, or if there are none.
    """

    record: Mapping[str, Any]
    mark: Mapping[str, str]
    manifest: Manifest | None = None
    unchecked: str = ""

    @property
    def model(self) -> str:
        """The pipeline that made it; empty if unknown."""
        return str(self.record.get("model") or self.record.get("pipeline") or "")

    @property
    def source_type(self) -> str:
        """The IPTC's word for how the picture came about; empty without a mark."""
        return self.mark.get(SOURCE_TYPE, "")

    def lines(self) -> list[tuple[str, str]]:
        """What there is to say, as names and texts."""
        signed = [] if self.manifest is None else self.manifest.lines()
        signed += [("manifest", self.unchecked)] if self.unchecked else []
        if not self.record and not self.mark:
            nothing = "none: Cascade did not make it, or its metadata was removed"
            return [("record", nothing), *signed]
        stages = self.record.get("stages") or {}
        texts = {
            "mark": self.source_type,
            "model": self.model,
            "version": str(self.record.get("version", "")),
            "prompt": str(self.record.get("prompt", "")),
            "negative": str(self.record.get("negative_prompt", "")),
            "labels": ", ".join(str(e) for e in (self.record.get("labels") or {}).values() if e),
            "seed": str(self.record.get("seed", "")),
            "stages": "; ".join(
                f"{name}: {each.get('sampler')}, {each.get('steps')} steps"
                for name, each in stages.items()
            ),
            "input": str(self.record.get("input_sha256", ""))[:16],
            "command": self.command,
        }
        return [*((name, text) for name, text in texts.items() if text), *signed]

    @property
    def command(self) -> str:
        """The command that makes the picture again, to be pasted into a shell; empty if unknown.

        `INPUT` stands for the picture that was upscaled or coloured.
        """
        if not self.model or "seeds" in self.record:  # a contact sheet
            return ""
        verb = self.record.get("command")
        if verb is None:
            words = ["cascade", "generate", self.model, *self._prompt_words(), "-o", "OUT"]
        else:
            words = ["cascade", str(verb), "INPUT", "-o", "OUTPUT", "--model", self.model]
            words += self._restoring_words()
        words += ["--seed", str(self.record.get("seed"))]
        return shlex.join([*words, *self._sampling_words()])

    def _prompt_words(self) -> list[str]:
        words = [self.record["prompt"]] if self.record.get("prompt") else []
        if self.record.get("negative_prompt"):
            words += ["--negative", self.record["negative_prompt"]]
        if self.record.get("stop_at"):
            words += ["--stop-at", self.record["stop_at"]]
        labels = [str(each) for each in (self.record.get("labels") or {}).values() if each]
        return words + (["--class", ",".join(labels)] if labels else [])

    def _restoring_words(self) -> list[str]:
        words = ["--scale", f"{self.record['scale']:g}"] if self.record.get("scale") else []
        if self.record.get("tile_px"):
            words += ["--tile", str(self.record["tile_px"])]
        if self.record.get("range"):
            words += ["--range", *(f"{each:g}" for each in self.record["range"])]
        if self.record.get("consistent") is False:
            words.append("--no-consistency")
        return words

    def _sampling_words(self) -> list[str]:
        """The settings that the pipeline would not take by itself, as `--set` options."""
        usual = _usual_settings(self.model)
        words = []
        for stage, recorded in (self.record.get("stages") or {}).items():
            own = usual.get(stage, {})
            unsaid = {name: UNSAID[name] for name in own.keys() & UNSAID.keys()}
            for name, value in {**unsaid, **recorded}.items():
                if own.get(name) != value:
                    words += ["--set", f"{stage}.{name}={_text(value)}"]
        return words


def inspect_picture(path: Path) -> Inspection:
    """Read how a picture was made.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    data = read_bytes(path)
    record = recorded_settings(path) or {}
    with opened_image(data, str(path)) as image:
        stored = read_metadata(data, image.info)
    try:
        mark = mark_of(stored.xmp)
    except ValueError:  # the packet is damaged
        mark = {}
    try:
        return Inspection(record, mark, read_manifest(data, format_of(data, str(path))))
    except ContractError as error:
        return Inspection(record, mark, unchecked=f"not checked: {error}")


def _usual_settings(model: str) -> dict[str, dict[str, Any]]:
    """The settings of a pipeline that is at hand, by stage; empty for any other."""
    try:
        folder = local_folder(model)
        stages = Path() if folder is None else folder / "stages"
        return {name: read_json(stages / name / CONFIG)["sampling"] for name in saved_names(stages)}
    except (CascadeError, LookupError):
        return {}


def _text(value: Any) -> str:
    return str(value).replace(" ", "") if isinstance(value, list) else str(value)

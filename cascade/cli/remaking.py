"""The command that makes a picture again, written from what the picture records.

`RECORDED` declares once which key of the record an option of a command sets. Its spelling is that
which the command declares. Keys that no option sets would change the picture without a word, so
there is no command for a picture that has one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from click import Command

    from cascade.inspection import PictureRecord

Uses = list[list[str]]  # the values of each use of an option; a flag is used once without values
FOLDER = "FOLDER"  # stands for the folders that lead to a model
ADAPTERS = "ADAPTERS"  # stands for the folders that lead to adapters
MAKING = ("generate", "upscale", "colourise", "restore", "edit")  # the commands that write pictures


def _once(value: Any) -> Uses:
    return [[str(value)]]


def _number(value: float) -> Uses:
    return [[str(int(value)) if value == int(value) else repr(value)]]


def _stands_for(word: str) -> Callable[[Any], Uses]:
    return lambda value: [[word]]


def _labels(value: str | Mapping[str, str]) -> Uses:
    text = value if isinstance(value, str) else ",".join(value.values())
    return [[text]] if text else []


def _adapters(value: Iterable[tuple[str, float]]) -> Uses:
    return [[f"{ADAPTERS}/{name}:{factor!r}"] for name, factor in value]


RECORDED: dict[str, tuple[str, Callable[[Any], Uses]]] = {  # parameter -> key, and its values
    "mask": ("mask_sha256", _stands_for("MASK")),
    "hints": ("hints_sha256", _stands_for("HINTS")),
    "like": ("like", _stands_for("IMAGE")),
    "prompt": ("prompt", _once),
    "prompt_option": ("prompt", _once),
    "negative": ("negative_prompt", _once),
    "labels": ("labels", _labels),
    "classes": ("labels", _labels),
    "uncrop": ("uncrop", lambda sides: [[",".join(map(str, sides))]]),
    "strength": ("strength", _number),
    "resamplings": ("resamplings", _once),
    "jump_length": ("jump_length", _once),
    "window": ("window_px", _once),
    "feather": ("feather_px", _once),
    "grow": ("grow_px", _once),
    "scale": ("scale", _number),
    "tile": ("tile_px", _once),
    "no_consistency": ("consistent", lambda is_consistent: [] if is_consistent else [[]]),
    "value_range": ("range", lambda limits: [[str(each) for each in limits]]),
    "axis": ("axis", _once),
    "nodata": ("nodata", _number),
    "variants": ("seeds", _once),
    "map": ("seeds", lambda count: [[]]),
    "seed": ("seed", _once),
    "lora": ("adapters", _adapters),
    "stop_at": ("stop_at", _once),
    "pages": ("pages", _once),
    "truncated": ("truncated", _once),
}
WITHOUT_TRACE = {  # they change no pixels, or only place, number and format of the files
    *(
        "inputs",
        "out",
        "model",
        "pipeline",
        "device",
        "engine",
        "workers",
        "part",
        "join",
        "dry_run",
    ),
    *(
        "image_format",
        "compare",
        "recolour",
        "no_metadata",
        "c2pa_certificate",
        "c2pa_key",
        "overwrite",
    ),
    *("num_images", "prompts", "batch_size", "keep_intermediates", "resume", "as_json"),
    *("quiet", "verbose"),
}
DESCRIBING = {  # keys that are no settings, or that are written otherwise
    *("command", "version", "model", "model_is_folder", "weights", "stages", "changed"),
    "input_sha256",
    *("size_px", "page_count", "signer", "metadata", "expected_error"),
}
IMPLIED: dict[str, dict[str, Any]] = {  # what a command does without an option for it
    "edit": {"grow_px": 0, "stays_grey": False},
    "restore": {"strength": 1.0, "feather_px": 0, "stays_grey": True},
}


@dataclass(frozen=True)
class Remaking:
    """How to make a picture again.

    Attributes:
        command: to be pasted into a shell, with words in capitals for what is not recorded; empty
            if there is none.
        notes: why there is no command, or what its capitals stand for.
    """

    command: str = ""
    notes: tuple[str, ...] = ()


def remaking_of(
    record: PictureRecord, commands: Mapping[str, Command], suffix: str = ""
) -> Remaking:
    """Write the command that makes a picture again.

    Args:
        record: what the picture records.
        commands: all commands by name.
        suffix: the suffix of the picture's name, which decides the format of the result.
    """
    if isinstance(record.seeds, list):
        from cascade.reporting.words import counted

        sheet = f"a sheet of {counted(len(record.seeds), 'image')}"
        return Remaking(notes=(f"no command: {sheet}, each with its own",))
    if not _is_model(record.model) or record.command not in MAKING:
        return Remaking(notes=("no command: the record does not say which command and model",))
    if label := _label_with_comma(record):
        return Remaking(notes=(f"no command: --class cannot express the comma in {label!r}",))
    command = commands[record.command]
    words, keys = _option_words(record, command)
    unknown = [*_unset(record, keys), *_unreadable(record)]
    if unknown:
        what = ", ".join(unknown)
        return Remaking(notes=(f"no command: cascade {record.command} has no option for {what}",))
    changes = [word for each in _changed_settings(record) for word in ("--set", _change(*each))]
    words = [*_first_words(record, command, suffix), *words, *changes]
    if not all(word.isprintable() for word in words):
        return Remaking(notes=("no command: it would hold characters that cannot be printed",))
    return Remaking(shlex.join(words), tuple(_notes(record)))


def _is_model(name: str) -> bool:
    """Whether a name can stand in a command; one with a hyphen first would be an option."""
    return bool(name) and not name.startswith("-")


def _label_with_comma(record: PictureRecord) -> str:
    """A class name that `--class` would split; empty if there is none."""
    names = record.labels.values() if isinstance(record.labels, dict) else ()
    return next((name for name in names if "," in name), "")


def _first_words(record: PictureRecord, command: Command, suffix: str) -> list[str]:
    model = f"{FOLDER}/{record.model}" if record.model_is_folder else record.model
    if any(each.name == "pipeline" for each in command.params):
        return ["cascade", record.command, model, "-o", "OUT"]
    return ["cascade", record.command, "INPUT", "-o", f"OUTPUT{suffix}", "--model", model]


def _option_words(record: PictureRecord, command: Command) -> tuple[list[str], set[str]]:
    """The options with their values, and the keys of the record that they set."""
    words, keys, recorded = [], set(), record.recorded
    for parameter in command.params:
        key, uses_of = RECORDED.get(parameter.name or "", ("", _once))
        option = next((each for each in parameter.opts if each.startswith("--")), "")
        if option and key in recorded:
            keys.add(key)
            words += [word for values in uses_of(recorded[key]) for word in (option, *values)]
    return words, keys


def _unset(record: PictureRecord, keys: set[str]) -> Iterator[str]:
    """The keys of a record that no option of its command sets."""
    implied = IMPLIED.get(record.command, {})
    for key, value in record.recorded.items():
        is_implied = key in implied and implied[key] == value
        if key not in keys | DESCRIBING and not is_implied:
            yield key


def _unreadable(record: PictureRecord) -> Iterator[str]:
    """The settings of the command whose values `--set` cannot express."""
    from cascade.errors import ContractError
    from cascade.sampling.overrides import Overrides

    for stage, name, value in _changed_settings(record):
        try:
            overrides = Overrides.parse([_change(stage, name, value)])
        except ContractError:
            overrides = Overrides()
        if overrides.values != {stage: {name: value}}:
            yield f"{stage}.{name}"


def _change(stage: str, name: str, value: Any) -> str:
    """A sampling setting as `--set` takes it."""
    from cascade.saving.differences import as_typed

    texts = [as_typed(each) for each in value] if isinstance(value, list) else []
    text = f"[{','.join(texts)}]" if texts else as_typed(value)
    return f"{stage}.{name}={text}"


def _changed_settings(record: PictureRecord) -> Iterator[tuple[str, str, Any]]:
    """Stage, name and value of each setting that the pipeline would not take by itself.

    If it is at hand, its settings are compared, since they may have changed in the meantime.
    """
    from cascade.chain_settings import setting_changes, with_unsaid

    usual = {} if record.model_is_folder else _usual_settings(record.model)
    changed = setting_changes(usual, record.stages) if usual else record.changed
    for stage, recorded in record.stages.items():
        for name, value in with_unsaid(recorded).items():
            if f"{stage}.{name}" in changed:
                yield stage, name, value


def _usual_settings(model: str) -> dict[str, dict[str, Any]]:
    """The settings of a pipeline that is at hand, by stage; empty for any other."""
    from cascade.errors import CascadeError
    from cascade.saving.chain_folder import STAGES, saved_sampling
    from cascade.saving.pipelines import local_folder

    try:
        folder = local_folder(model)
        if folder is None:
            return {}
        saved = saved_sampling(folder / STAGES)
    except CascadeError:
        return {}
    return {name: {} if each is None else each.to_dict() for name, each in saved.items()}


def _notes(record: PictureRecord) -> Iterator[str]:
    if record.model_is_folder:
        yield f"{FOLDER} stands for the path of the model, which is not recorded"
    if record.adapters:
        yield f"{ADAPTERS} stands for the path of each adapter, which is not recorded"

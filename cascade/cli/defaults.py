"""The user's own defaults: options that one always gives, in a file `cascade.yaml`.

The file in the working folder counts, else the one in the user's configuration folder, which on
Linux is `$XDG_CONFIG_HOME/cascade`, by default `.config/cascade` in the home folder. Options are
written without dashes, for all commands that have them or for one command:

    device: cpu
    upscale:
      model: photo-x4-restore
      compare: true
    data check:
      workers: 4

An option on the command line overrides the file. A list stands for an option that is given several
times, for one that takes several values, or for values that are separated by commas.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from cascade.errors import RecipeError, nearest

FILE = "cascade.yaml"
OTHERWISE = " (give the file another name if it does not hold defaults of cascade)"
Commands = Mapping[str, Mapping[str, Any]]  # command -> option without dashes -> parameter


def defaults_file() -> Path | None:
    """The file that counts; None if there is none."""
    candidates = (Path(FILE), Path(typer.get_app_dir("cascade", force_posix=False)) / FILE)
    return next((path for path in candidates if path.is_file()), None)


def read_defaults(path: Path, commands: Commands) -> dict[str, dict[str, Any]]:
    """Read a file of defaults.

    Args:
        path: the file.
        commands: all commands with their options, each with the name of its parameter.

    Returns:
        Values by the names of the parameters, by command.

    Raises:
        RecipeError: naming the key that is no option and no command, or has a value of a wrong
            kind.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path}: cannot be read as YAML ({reason}).") from error
    if values is None:  # nothing but comments
        values = {}
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path}: defaults must be options with values, such as device: cpu.")
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for key, value in sorted(values.items(), key=lambda pair: isinstance(pair[1], Mapping)):
        if isinstance(value, Mapping):
            _check_command(str(key), commands, path)
            for option, each in value.items():
                _set(defaults, [str(key)], str(option), each, commands, path)
        else:
            _set(defaults, list(commands), str(key), value, commands, path)
    return defaults


def _set(
    defaults: dict[str, dict[str, Any]],
    names: list[str],
    option: str,
    value: Any,
    commands: Commands,
    path: Path,
) -> None:
    """Set a default of those commands that have the option."""
    having = [name for name in names if option in commands[name]]
    if not having:
        options = {each for name in names for each in commands[name]}
        place = f" of {names[0]}" if len(names) == 1 else ""
        raise RecipeError(
            f"{path}: no option{place} {option!r}{OTHERWISE}: {nearest(option, sorted(options))}"
        )
    if isinstance(value, Mapping) or value is None:
        raise RecipeError(f"{path}: {option} must have one value or a list, got {value!r}.")
    for name in having:
        defaults[name][commands[name][option]] = value


def _check_command(name: str, commands: Commands, path: Path) -> None:
    if name not in commands:
        raise RecipeError(f"{path}: no command {name!r}{OTHERWISE}: {nearest(name, commands)}")

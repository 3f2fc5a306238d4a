"""Reads the YAML of a recipe without checking its keys, so that no other room is imported."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cascade.errors import RecipeError


def read_yaml(path: Path) -> DictConfig:
    """Read the file of a recipe.

    Raises:
        RecipeError: if it cannot be read, is not valid YAML, or does not hold keys and values.
    """
    try:
        config = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise RecipeError(f"{path}: not valid YAML ({one_line(error)}).") from error
    if not isinstance(config, DictConfig):
        raise RecipeError(f"{path}: a recipe must be a mapping of keys to values.")
    return config


def one_line(error: Exception) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())

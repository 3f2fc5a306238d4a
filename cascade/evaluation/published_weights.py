"""Imports the packages of published networks and loads their weights, without unpickling."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.errors import CascadeError, WeightsError, first_line
from cascade.extras import install_command

MOST_OF_REASON = 200


def load_state(name: str, url: str, file: Path | None, argument: str) -> dict[str, Tensor]:
    """Load weights from a file, or download them into torch's cache.

    Args:
        name: name of the network, for messages.
        url: address of the download.
        file: file to read instead of the download; None to download.
        argument: name of the argument by which a user gives the file, for messages.

    Raises:
        WeightsError: if they cannot be loaded.
    """
    try:
        if file is not None:
            return torch.load(file, map_location="cpu", weights_only=True)
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:  # many kinds: network, disk, damaged files
        raise weights_error(name, str(file or url), argument, error) from error


def weights_error(name: str, where: str, argument: str, error: Exception) -> WeightsError:
    """Make the error that says why weights cannot be loaded, and what to do.

    Args:
        name: name of the network.
        where: file, folder or address that was tried.
        argument: name of the argument by which a user gives a file or folder.
        error: what went wrong.
    """
    reason = first_line(error)[:MOST_OF_REASON]
    return WeightsError(
        f"the weights of {name} cannot be loaded from {where} ({reason}); download them elsewhere "
        f"and give their path as {argument}, or use the extractor lite0, which needs no download."
    )


def import_package(name: str) -> Any:
    """Import a module of the extra `extractors`.

    Raises:
        CascadeError: if its package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CascadeError(
            f"{name.partition('.')[0]} cannot be imported ({error}); install it with: "
            f"{install_command('extractors')}"
        ) from error

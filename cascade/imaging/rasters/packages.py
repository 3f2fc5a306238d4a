"""The optional packages that read medical files."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from cascade.errors import DataError
from cascade.extras import install_command

EXTRA = "medical"


def imported(module: str, what: str, name: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: `pydicom` or `nibabel`, or a module of it.
        what: what it reads, such as `DICOM`.
        name: the file's name, for the error message.

    Raises:
        DataError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(
            f"{name}: {what} needs the package {package}, which is not installed: "
            f"{install_command(EXTRA)}"
        ) from error


@contextmanager
def silenced(package: str) -> Iterator[None]:
    """Keep a package from logging its errors with tracebacks during a `with`; it raises them too.

    Args:
        package: `pydicom` or `nibabel`.
    """
    logger = logging.getLogger(package)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)

"""The optional packages that read medical files."""

from __future__ import annotations

import importlib
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

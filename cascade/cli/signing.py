"""The two options by which results are signed, shared by the commands that write pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cascade.imaging.credentials import Signer

Certificate = Annotated[
    Path | None,
    typer.Option(
        "--c2pa-certificate",
        metavar="FILE",
        help="Sign results (C2PA) with this certificate, a PEM file with its chain.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option("--c2pa-key", metavar="FILE", help="PEM file of the certificate's private key."),
]


def signer_of(certificate: Path | None, key: Path | None) -> Signer | None:
    """Who signs the results; None without the options.

    Raises:
        BadParameter: if only one of the two is given.
        CascadeError: if they cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise typer.BadParameter("--c2pa-certificate and --c2pa-key need each other; give both.")
    from cascade.imaging.credentials import Signer

    return Signer(certificate, key)

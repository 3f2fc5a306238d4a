"""`cascade doctor`."""

from __future__ import annotations


def doctor() -> None:
    """Show the hardware, versions and extras of this machine, and what they mean.

    Example: cascade doctor
    """
    from cascade.cli.tables import print_rows
    from cascade.diagnosis import diagnose

    print_rows(diagnose())

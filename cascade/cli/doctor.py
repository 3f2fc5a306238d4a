"""`cascade doctor`."""

from __future__ import annotations


def doctor() -> None:
    """Show the hardware, versions and extras of this machine, and what they mean.

    Example: cascade doctor
    """
    from rich.console import Console
    from rich.table import Table

    from cascade.diagnosis import diagnose

    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in diagnose():
        table.add_row(finding.subject, finding.value, finding.meaning)
    Console().print(table)

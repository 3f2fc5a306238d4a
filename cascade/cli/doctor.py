"""`cascade doctor`."""

from __future__ import annotations

from cascade.cli.documents import AsJson, Document


def doctor(as_json: AsJson = False) -> Document | None:
    """Show the hardware, versions and extras of this machine, and what they mean.

    Example: cascade doctor
    """
    from cascade.cli.tables import print_rows
    from cascade.diagnosis import diagnose

    findings = diagnose()
    if as_json:
        return {"findings": [finding._asdict() for finding in findings]}
    print_rows(findings)

"""`cascade doctor`."""

from __future__ import annotations

from cascade.cli.documents import AsJson, Document
from cascade.cli.verbosity import Verbosity, note, verbosity


def doctor(as_json: AsJson = False) -> Document | None:
    """Show the hardware, versions and extras of this machine, and what they mean.

    Example: cascade doctor
    """
    from cascade.cli.tables import print_rows
    from cascade.diagnosis import diagnose

    if as_json:
        return {"findings": [finding._asdict() for finding in diagnose()]}
    is_verbose = verbosity() is Verbosity.VERBOSE
    print_rows(diagnose(developers=is_verbose))
    if not is_verbose:
        note("--verbose lists the extras for developers of Cascade too", is_result=False)

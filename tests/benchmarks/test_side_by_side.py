"""Facts about benchmarks/side_by_side.py: memory of a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_peak_memory_is_of_a_process_and_not_of_the_one_that_started_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from side_by_side import peak_mib, results_apart

    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "from side_by_side import peak_mib, print_result\n"
        "print_result({'peak_mib': peak_mib()})\n"
    )
    held = np.ones(2**30, dtype=np.uint8)
    (found,) = results_apart(str(script), [], threads=1)
    del held
    assert 50 < found["peak_mib"] < 2**10 < peak_mib()

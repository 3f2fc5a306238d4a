"""Facts about benchmarks/side_by_side.py and family.py: processes of their own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def test_peak_memory_is_of_a_process_and_not_of_the_one_that_started_it(tmp_path):
    from side_by_side import peak_mib, results_apart

    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "from side_by_side import peak_mib, print_result\n"
        "print_result({'peak_mib': peak_mib()})\n"
    )
    held = np.ones(2**30, dtype=np.uint8)
    (result,) = results_apart(str(script), [], threads=1)
    del held
    assert 20 < result["peak_mib"] < 2**10 < peak_mib()


def test_ctrl_c_lets_a_process_save_its_work(tmp_path):
    from side_by_side import RESULT, results_apart

    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    print('x' * 2**17)  # more than a pipe holds\n"
        f"    open({str(tmp_path / 'saved')!r}, 'w').close()\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"print('{RESULT}' + '1', flush=True)\n"
        "time.sleep(60)\n"
    )
    results = results_apart(str(script), [], threads=1)
    assert next(results) == 1
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt())
    assert (tmp_path / "saved").exists()


def test_sigterm_stops_the_family_as_ctrl_c_does(tmp_path, monkeypatch):
    import family

    monkeypatch.setattr(sys, "argv", ["family.py", "--out", str(tmp_path)])
    monkeypatch.setattr(family, "apart", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            family.main()
    finally:
        signal.signal(signal.SIGTERM, before)

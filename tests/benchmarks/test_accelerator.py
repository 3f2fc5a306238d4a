"""Facts about benchmarks/accelerator.py: what it reads from pytest."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"
sys.path.insert(0, str(SCRIPT.parent))
RESULTS = """<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><skipped message="no"/></testcase>
<testcase name="c"><failure message="assert 1 == 2">trace</failure></testcase>
<testcase name="d"><error message="broken"/></testcase>
</testsuite></testsuites>"""


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accelerator_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load_script()


def test_failures_of_the_tests_are_named(tmp_path):
    (tmp_path / "results.xml").write_text(RESULTS)
    assert benchmark.read_results(tmp_path / "results.xml") == {
        "passed": 1,
        "skipped": 1,
        "failed": 2,
        "failures": {"c": "assert 1 == 2", "d": "broken"},
    }


def test_tests_that_did_not_run_have_failed(tmp_path):
    assert benchmark.read_results(tmp_path / "results.xml")["failures"] == {
        "pytest": "ran no tests"
    }

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cascade.bulk.ledger import Ledger
from cascade.errors import OutputError


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_one_writes_another_reads(file):
    one, other = Ledger(file), Ledger(file)
    one.start_round()
    one.add("made", "a.png", "w", {"seconds": 1.5})
    other.add("failed", "b.png", "w", {"reason": "\udcff broken\n"})
    one.refresh()
    other.refresh()
    assert one.this_round == other.this_round == Ledger(file).this_round
    assert list(one.this_round) == [("a.png", "w"), ("b.png", "w")]
    assert one.this_round["b.png", "w"]["reason"] == "\udcff broken\n"
    assert list(one.results) == ["a.png"]
    assert one.results["a.png"]["seconds"] == 1.5


def test_a_new_round_forgets_failures_and_keeps_results(file):
    ledger = Ledger(file)
    for _ in range(2):
        ledger.start_round()
        ledger.add("made", "a.png", "w", {})
        ledger.add("failed", "b.png", "w", {})
    ledger.start_round()
    for each in (ledger, Ledger(file)):
        assert each.this_round == {}
        assert list(each.results) == ["a.png"]


def test_the_same_result_with_other_settings_is_another_job(file):
    ledger = Ledger(file)
    ledger.add("made", "a.png", "one", {})
    ledger.add("failed", "a.png", "other", {})
    assert {key: line["event"] for key, line in Ledger(file).this_round.items()} == {
        ("a.png", "one"): "made",
        ("a.png", "other"): "failed",
    }


def test_it_outlives_a_kill_at_any_byte(file):
    ledger = Ledger(file)
    ledger.add("made", "a.png", "w", {"seconds": 1})
    whole = file.read_bytes()
    ledger.add("made", "b.png", "w", {"seconds": 2})
    torn = file.read_bytes()
    for end in range(len(whole), len(torn) - 1):
        file.write_bytes(torn[:end])
        reader = Ledger(file)
        reader.add("made", "c.png", "w", {"seconds": 3})
        assert list(Ledger(file).results) == ["a.png", "c.png"]
    file.write_bytes(torn)
    assert list(Ledger(file).results) == ["a.png", "b.png"]


def test_a_line_that_another_has_only_half_written_is_read_when_it_is_whole(file):
    ledger = Ledger(file)
    line = json.dumps({"event": "made", "output": "a.png", "settings_id": "w"}).encode()
    with file.open("ab") as other:
        other.write(line[:9])
        other.flush()
        ledger.refresh()
        assert ledger.results == {}
        other.write(line[9:] + b"\n")
    ledger.refresh()
    assert list(ledger.results) == ["a.png"]


def test_lines_of_somebody_else_are_left_alone(file):
    file.write_bytes(
        b'[1]\n{"x": 1}\nnull\n\xff\n{"event": 3, "output": "x", "settings_id": "w"}\n'
    )
    ledger = Ledger(file)
    assert ledger.results == {}


def test_settings_that_lines_share_are_kept_once(file):
    ledger = Ledger(file)
    for number, steps in enumerate((8, 8, 4)):
        ledger.add("made", f"{number}.png", "w", {"record": {"stages": {"a": {"steps": steps}}}})
    for reader in (ledger, Ledger(file)):
        records = [reader.results[f"{number}.png"]["record"] for number in range(3)]
        assert [each["stages"]["a"]["steps"] for each in records] == [8, 8, 4]
        assert records[0]["stages"] is records[1]["stages"]


def test_without_a_file_it_is_kept_in_memory(tmp_path):
    ledger = Ledger(None)
    ledger.add("made", "a.png", "w", {})
    ledger.refresh()
    assert list(ledger.results) == ["a.png"]
    assert list(ledger.this_round) == [("a.png", "w")]
    assert os.listdir(tmp_path) == []


def test_a_ledger_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file/ledger.jsonl: Not a directory"):
        Ledger(tmp_path / "file" / "ledger.jsonl")

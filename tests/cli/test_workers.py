"""`--workers`: further processes of the same command."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import typer

from cascade.cli.workers import IS_WORKER, check_workers, further_workers


@pytest.fixture
def started(monkeypatch):
    """The processes that are started, as their commands, environments and what befell them."""
    processes = []

    def start(command, *, env, stdin):
        process = SimpleNamespace(command=command, env=env, stdin=stdin, ended=[])
        process.wait = lambda: process.ended.append("waited")
        process.terminate = lambda: process.ended.append("terminated")
        processes.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(sys, "argv", ["cascade", "upscale", "photos", "-o", "out"])
    for name in ("RANK", IS_WORKER):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield processes
    torch.set_num_threads(before)


def test_each_further_process_runs_the_same_command_on_its_share_of_the_cores(started):
    torch.set_num_threads(7)
    with further_workers(3):
        assert [each.command[-4:] for each in started] == [["upscale", "photos", "-o", "out"]] * 2
        assert [each.env["RANK"] for each in started] == ["1", "2"]
        assert {each.env["OMP_NUM_THREADS"] for each in started} == {"2"}
        assert torch.get_num_threads() == 2
    assert [each.ended for each in started] == [["waited"], ["waited"]]


def test_the_others_end_with_the_first(started):
    with pytest.raises(KeyboardInterrupt), further_workers(2):
        raise KeyboardInterrupt
    assert [each.ended for each in started] == [["terminated", "waited"]]


def test_a_further_process_starts_none(started, monkeypatch):
    monkeypatch.setenv(IS_WORKER, "1")
    monkeypatch.setenv("RANK", "1")
    check_workers(2)
    with further_workers(2):
        assert started == []


def test_workers_are_refused_under_a_launcher(started, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    check_workers(1)
    with pytest.raises(typer.BadParameter, match="a launcher has started this one"):
        check_workers(2)

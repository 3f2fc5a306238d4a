"""What is refused; that sharded processes train as one is tested in test_processes.py."""

from __future__ import annotations

import pytest
import torch

from cascade.errors import CascadeError, OtherProcessError
from cascade.training.processes import make_accelerator
from cascade.training.settings import TrainingSettings
from cascade.training.sharding import asks_for_sharding, shard


@pytest.fixture
def fsdp(monkeypatch):
    """A function that sets what `accelerate launch --use_fsdp` does."""

    def set_values(**values: str) -> None:
        variables = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **values}
        for key, value in variables.items():
            monkeypatch.setenv(key, value)

    return set_values


def test_sharding_is_asked_for_by_the_settings_of_accelerate(fsdp):
    assert not asks_for_sharding()
    fsdp(FSDP_OFFLOAD_PARAMS="false")
    assert asks_for_sharding()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"FSDP_VERSION": "1"},
            "^FSDP is supported in version 2 only; launch with --fsdp_version 2",
        ),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "^FSDP with offloading to the CPU is not supported"),
    ],
)
def test_other_kinds_of_fsdp_are_refused(fsdp, values, message):
    fsdp(**values)
    with pytest.raises(CascadeError, match=message):
        make_accelerator()


def test_one_process_says_what_is_refused(fsdp):
    fsdp(FSDP_VERSION="1", RANK="1")
    with pytest.raises(OtherProcessError):
        make_accelerator()


def test_a_setting_of_fsdp_that_accelerate_does_not_know_is_one_line(fsdp):
    fsdp(FSDP_RESHARD_AFTER_FORWARD="FULL_SHARD")  # of version 1
    with pytest.raises(CascadeError, match=r"accelerate's settings do not fit: .*full_shard"):
        make_accelerator()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainingSettings(optimiser="muon"), r"the optimiser muon needs whole weights"),
        (TrainingSettings(compile=True), r"compile is not supported with FSDP"),
    ],
)
def test_settings_that_need_whole_weights_are_refused(base_stage, settings, message):
    with pytest.raises(CascadeError, match=message):
        shard(base_stage, settings, device=torch.device("cpu"), processes=2)

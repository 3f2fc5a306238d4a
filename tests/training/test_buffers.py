"""Networks whose buffers change in training, as the running statistics of batch norms do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_own_network import Normed, images, make_trainer
from torch import nn

from cascade.conditioning.signals import Signals
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training.averaging import reconstruct, snapshots
from cascade.training.buffers import changing_buffers, settle_buffers
from cascade.training.checkpoint import read_newest

SCRIPT = Path(__file__).with_name("run_own_network.py")


def predict(stage: Stage) -> torch.Tensor:
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return stage.eval().predict(noise, torch.full((4,), 50), Signals())  # pyright: ignore


def same_buffers(stage: Stage, other: Stage) -> bool:
    return all(a.equal(b) for a, b in zip(stage.buffers(), other.buffers(), strict=True))


def test_the_saved_stage_has_the_statistics_of_the_training(tmp_path):
    """Without averaging, it predicts exactly what the stage in training does."""
    trainer = make_trainer(tmp_path, ema_decay=0.0, snapshot_every_images=32)
    trainer.run()
    trained, saved = trainer.state.stage, load_stage(tmp_path / "stage")
    assert int(trained.get_buffer("network.module.norm.num_batches_tracked")) == 4
    assert predict(saved).equal(predict(trained))
    assert same_buffers(saved, trained)


def test_snapshots_have_those_of_their_time(tmp_path):
    trainer = make_trainer(tmp_path, snapshot_every_images=32)
    trainer.run()
    stored = snapshots(tmp_path / "averages")
    counts = [
        int(load_stage(each.folder).get_buffer("network.module.norm.num_batches_tracked"))
        for each in stored
    ]
    assert counts == [2, 2, 4, 4]
    average = reconstruct(stored, 0.08, images_seen=64)
    for value, expected in zip(average.buffers(), trainer.state.stage.buffers(), strict=True):
        torch.testing.assert_close(value, expected, rtol=2e-3, atol=1e-4)  # stored in 16 bits


def test_a_skipped_step_leaves_them_as_they_were(tmp_path):
    data = images()
    data[:16] = [torch.full((3, 8, 8), 1.0) for _ in range(16)]
    trainer = make_trainer(tmp_path, Normed(dropout=0.0), data)
    layer = trainer.state.stage.get_submodule("network.module.first")
    failing = layer.register_forward_hook(lambda module, args, result: result * float("nan"))
    stage = trainer.state.stage
    before = [each.clone() for each in stage.buffers()]
    batches = trainer._batches()
    trainer.step_log.start()
    trainer._step(next(batches))
    assert trainer.state.bad_steps == 1
    assert all(a.equal(b) for a, b in zip(stage.buffers(), before, strict=True))
    failing.remove()
    trainer._step(next(batches))
    assert trainer.state.bad_steps == 1
    assert int(stage.get_buffer("network.module.norm.num_batches_tracked")) == 1


def test_buffers_of_frozen_parts_and_constants_are_not_exchanged():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3).eval())
    network.register_buffer("table", torch.zeros(4), persistent=False)
    places = changing_buffers(network, None)
    assert [each.name for each in places] == [
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]
    assert {each.module for each in places} == {network[0]}


def test_buffers_of_one_type_travel_in_one_message(monkeypatch):
    main, other = (nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm1d(3)) for _ in range(2))
    for number, buffer in enumerate(main.buffers()):
        buffer.copy_(torch.arange(buffer.numel()).view_as(buffer) + 10 * number)
    sent: list[torch.Tensor] = []

    def broadcast(tensor: torch.Tensor, source: int) -> None:
        """The first process sends; the second receives the messages in their order."""
        if sending:
            sent.append(tensor.clone())
        else:
            tensor.copy_(sent.pop(0))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    processes: Any = SimpleNamespace(num_processes=2)
    expected = [each.clone() for each in main.buffers()]
    for sending, network in ((True, main), (False, other)):
        places = changing_buffers(network)
        settle_buffers(places, [each.value() for each in places], processes, keep=True)
        assert len(sent) == (2 if sending else 0)  # of floats, and of whole numbers
        assert all(a.equal(b) for a, b in zip(network.buffers(), expected, strict=True))


def test_a_skipped_step_undoes_a_buffer_that_was_replaced(tmp_path):
    """A network may assign a new tensor instead of changing the old one."""
    trainer = make_trainer(tmp_path, Normed(dropout=0.0))
    network = trainer.state.stage.get_submodule("network.module")

    def count(module: nn.Module, args: object, result: torch.Tensor) -> torch.Tensor:
        norm = module.get_submodule("norm")
        norm.running_mean = norm.get_buffer("running_mean") + 1
        return result * failing

    failing = float("nan")
    before = network.get_buffer("norm.running_mean").clone()
    network.register_forward_hook(count)
    batches = trainer._batches()
    trainer.step_log.start()
    trainer._step(next(batches))
    assert trainer.state.bad_steps == 1
    assert network.get_buffer("norm.running_mean").equal(before)
    failing = 1.0
    trainer._step(next(batches))
    assert trainer.state.bad_steps == 1
    assert not network.get_buffer("norm.running_mean").equal(before)


@pytest.mark.parametrize("sharded", [False, True])
def test_several_processes_keep_those_of_the_main_one(server, tmp_path, sharded):
    arguments, said = [tmp_path / "run", 32], tmp_path / "said"
    codes = server.run(arguments, said, processes=2, script=SCRIPT, sharded=sharded)
    assert codes == [0, 0], said.read_text()
    held = [torch.load(tmp_path / f"run.{rank}.pt")["buffers"] for rank in range(2)]
    assert all(a.equal(b) for a, b in zip(*held, strict=True))
    assert int(held[0][2]) == 2
    saved = load_stage(tmp_path / "run" / "stage").state_dict()
    newest = read_newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    for place, name in enumerate(("running_mean", "running_var", "num_batches_tracked")):
        key = f"network.module.norm.{name}"
        assert saved[key].equal(held[0][place])
        assert newest.tensors["stage.safetensors"][key].equal(held[0][place])

"""What is raised is what torch raises in these cases; on the CPU memory is never short in time."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from cascade.errors import CascadeError
from cascade.training.failures import explained_errors
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.objective import Learner
from cascade.training.settings import TrainingSettings

OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
)


def message_of(error: Exception, **settings) -> str:
    """The one line that the user gets in the place of an error."""
    with pytest.raises(CascadeError) as caught, explained_errors(TrainingSettings(**settings)):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_short_memory_ends_a_run_with_what_to_do(make_trainer, tmp_path, monkeypatch, error):
    trainer = make_trainer(tmp_path, "train.checkpoint_every_images=16")

    def runs_out(batch):
        if trainer.state.images_seen == 32:
            raise error
        return Learner(trainer.state.stage, Denoising())(batch)

    monkeypatch.setattr(trainer, "model", runs_out)
    with pytest.raises(CascadeError, match=r"^out of memory in training; .*2 accumulation steps"):
        trainer.run()
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == f"{32:012d}"
    assert (tmp_path / "report.html").is_file()


def test_what_is_on_already_is_not_offered():
    line = message_of(MemoryError(), accumulation_steps=4, gradient_checkpointing=True)
    assert "8 accumulation steps instead of 4" in line
    assert "gradient checkpointing" not in line
    assert "turn on gradient checkpointing" in message_of(MemoryError())


def test_a_damaged_cache_of_the_compiler_is_named(make_trainer, tmp_path, monkeypatch):
    """A backend of torch.compile that fails as inductor does on a file that was cut off."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))

    def damaged(graph, inputs):
        raise ImportError("abc.main.so: file too short")

    trainer = make_trainer(tmp_path / "run", "train.compile=true")
    torch._dynamo.reset()
    trainer.state.stage.network.backbone.compile(backend=damaged)
    with pytest.raises(CascadeError) as caught:
        trainer.run()
    assert isinstance(caught.value.__cause__, BackendCompilerFailed)
    line = str(caught.value)
    assert line.startswith("the network cannot be compiled (ImportError: abc.main.so: file too sh")
    assert line.endswith(f"remove the folder {tmp_path / 'cache'}.")
    assert "\n" not in line


def test_other_errors_go_through():
    for error in (KeyError("x"), RuntimeError("mat1 and mat2"), ImportError("x")):
        with pytest.raises(type(error)) as caught, explained_errors(TrainingSettings()):
            raise error
        assert caught.value is error

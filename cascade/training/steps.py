"""One step of a training: gradients of a batch, then new weights and averages, or none."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import nn

from cascade.conditioning.batch import Batch
from cascade.devices import autocast
from cascade.diffusion.noise import derive_seed
from cascade.errors import CascadeError
from cascade.training.checkpoint import RunState
from cascade.training.optimiser import clip_gradients
from cascade.training.settings import TrainingSettings


def seed_dropout(seed: int, images_seen: int, accelerator: Accelerator) -> None:
    """Seed torch's own generators, on all devices, before a step.

    Everything of ours draws from the seeds of the images. Only modules such as dropout draw from
    these generators: the same in a resumed run, and differently in each step and process.

    Args:
        seed: seed of the run.
        images_seen: number of images seen before the step.
        accelerator: the processes of the run.
    """
    torch.manual_seed(derive_seed(seed, "dropout", images_seen, accelerator.process_index))


def accumulate_gradients(
    model: nn.Module,
    batch: Batch,
    accelerator: Accelerator,
    settings: TrainingSettings,
    *,
    sharded: bool,
) -> float:
    """Sum the gradients of the parts of a batch, each weighted by its number of images.

    Args:
        model: stage and objective, which returns the loss of each image.
        batch: the images of this process.
        accelerator: the processes of the run.
        settings: settings of the run.
        sharded: whether each process holds a part of the weights. Gradients are then exchanged
            after each part of the batch, for lack of memory, and otherwise once.

    Returns:
        The mean loss of the batch.
    """
    total = torch.zeros((), device=accelerator.device)
    parts = batch.parts(settings.accumulation_steps)
    for number, part in enumerate(parts, start=1):
        exchanges = sharded or number == len(parts)
        with nullcontext() if exchanges else accelerator.no_sync(model):
            with autocast(accelerator.device, settings.precision):
                loss = model(part.to(accelerator.device)).sum() / len(batch)
            loss.backward()  # accelerate's own divides by its own setting
        total += loss.detach()
    return float(total)


def clip(state: RunState, accelerator: Accelerator, largest_norm: float) -> list[float]:
    """Scale the gradients of the stage, and those of what the objective trains, down to a norm.

    The latter are averaged over the processes first. DDP and FSDP leave them out, because DDP waits
    in each step for all gradients that it knows, and these may begin late in a run.

    Args:
        state: the run, with the gradients of a batch, which are changed.
        accelerator: the processes of the run.
        largest_norm: largest norm of the gradients of each of them, above 0.

    Returns:
        The norms before clipping, that of the stage first.
    """
    norms = [clip_gradients(list(state.stage.parameters()), largest_norm)]
    if state.learned is not None:
        parameters = list(state.learned.parameters())
        _average_gradients(parameters, accelerator.num_processes)
        norms.append(clip_gradients(parameters, largest_norm))
    return norms


def _average_gradients(parameters: list[nn.Parameter], processes: int) -> None:
    """Average gradients over all processes, which must all have them or all lack them."""
    for parameter in parameters if processes > 1 else []:
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)  # gloo can sum, but not average
            parameter.grad /= processes


def take_step(state: RunState, *, batch_size: int) -> None:
    """Change weights and averages by the gradients of a batch of `batch_size` images."""
    for optimiser in state.optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    state.ema.step(state.stage.parameters())
    for average in state.power_averages:
        average.step(
            list(state.stage.parameters()),
            images_seen=state.images_seen,
            batch_size=batch_size,
        )
    state.steps += 1
    state.bad_steps_in_a_row = 0


def skip_step(state: RunState, *, most_in_a_row: int) -> None:
    """Skip a step whose loss or gradient is not finite.

    Raises:
        CascadeError: if more than `most_in_a_row` steps in a row were skipped.
    """
    for optimiser in state.optimisers:
        optimiser.zero_grad(set_to_none=True)
    state.bad_steps += 1
    state.bad_steps_in_a_row += 1
    if state.bad_steps_in_a_row > most_in_a_row:
        raise CascadeError(
            f"loss or gradient was not finite in {state.bad_steps_in_a_row} steps in a row, up "
            f"to {state.images_seen} images; lower the learning rate or train in fp32, and "
            "run again to resume from the last checkpoint."
        )

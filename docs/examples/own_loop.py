"""Train a stage with a loop of your own: Cascade gives the loss, and torch does the rest.

The images are small blobs of one colour on white. Usage: python own_loop.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

from cascade import Batch, Contract, DiffusionStage, NoiseProcess, NoiseSchedule, Run, Space
from cascade.imaging.writing import contact_sheet
from cascade.training.objectives.denoising import Denoising

STEPS, BATCH_SIZE, SIZE_PX = 150, 16, 16


def blobs(count: int, generator: torch.Generator) -> torch.Tensor:
    """Images (B, 3, 16, 16) in [-1, 1]: a disc of a random colour at a random place."""
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 1.4 - 1
    x, y = (torch.rand(2, count, 1, 1, generator=generator) * 6 + 5).unbind()
    pixels = torch.arange(SIZE_PX)
    inside = (pixels[None, None] - x) ** 2 + (pixels[None, :, None] - y) ** 2 < 16
    return torch.where(inside[:, None], colour, torch.ones(()))


def main(folder: Path) -> None:
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=SIZE_PX), ()),
        NoiseProcess(NoiseSchedule("cosine"), prediction="x0"),
        network_options={"channels": [16, 32], "blocks": 1, "patch_size": 2},
    )
    objective, generator = Denoising(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    losses = []
    for step in range(STEPS):
        seeds = range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)  # decide noise and timesteps
        batch = Batch(images=blobs(BATCH_SIZE, generator), seeds=tuple(seeds))
        loss = objective.loss(stage, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    settings = stage.sampling.changed(steps=10)
    images = stage.eval().run(range(16), run=Run(settings=settings))
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(images).save(folder / "own_loop.png")
    print(f"loss: {sum(losses[:10]) / 10:.3f} at first, {sum(losses[-10:]) / 10:.3f} at last")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

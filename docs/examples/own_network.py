"""Train a network of your own: any module that is called as `network(x_t, t, signals)`.

It learns to upscale discs from 8 to 16 px. Usage: python own_network.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from torch import nn

import cascade
from cascade.imaging.writing import contact_sheet
from cascade.networks.stage_network import MODULES
from cascade.training.objectives.denoising import Denoising


class Convolutions(nn.Module):
    """Three convolutions that see the noisy image, the small image and the time."""

    size_multiple_px = 1  # it takes images of any size

    def __init__(self, *, in_channels: int, width: int = 32) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "width": width}  # to build it again
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time = nn.Linear(1, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x_t, t, signals):
        small = [signal.image for signal in signals.channels.values()]  # at the size of x_t
        time = self.time(t[:, None].float() / 1000)[..., None, None]
        features = torch.relu(self.first(torch.cat([x_t, *small], dim=1)) + time)
        return self.last(torch.relu(self.middle(features)))


MODULES["convolutions"] = Convolutions  # the name in stage.json, so that it can be loaded


def discs(count: int, seed: int) -> torch.Tensor:
    """Images (B, 3, 16, 16) in [-1, 1]: a dark disc at a random place."""
    x, y = torch.rand(2, count, 1, 1, generator=torch.Generator().manual_seed(seed)) * 6 + 5
    pixels = torch.arange(16)
    inside = (pixels[None, None] - x) ** 2 + (pixels[None, :, None] - y) ** 2 < 16
    return torch.where(inside, -0.8, 0.9)[:, None].expand(-1, 3, -1, -1)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    stage = cascade.DiffusionStage(
        Convolutions(in_channels=6),
        cascade.NoiseProcess(cascade.NoiseSchedule("cosine"), prediction="x0"),
        cascade.Contract(cascade.Space(size_px=16), (cascade.LowResolution(size_px=8),)),
    )
    optimiser = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    for step in range(200):
        batch = cascade.Batch(images=discs(16, step), seeds=tuple(range(step * 16, step * 16 + 16)))
        loss = Denoising().loss(stage, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    stage.save_pretrained(folder / "own_network")
    stage = cascade.load_stage(folder / "own_network").eval()
    truth = cascade.Batch(images=discs(8, 1000), seeds=tuple(range(8)))
    run = cascade.Run(settings=stage.sampling.changed(steps=10))
    images = stage.run(truth.seeds, stage.contract.inputs_of(truth), run=run)
    contact_sheet(images).save(folder / "own_network.png")
    print(f"mean error of a pixel: {(images - truth.images).abs().mean() / 2 * 255:.1f} of 255")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

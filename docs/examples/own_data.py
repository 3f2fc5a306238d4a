"""Train on a data set of your own: any torch Dataset of tensors, here with a label.

It trains half of the way, and then resumes as after an interruption.
Usage: python own_data.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from torch.utils.data import Dataset

import cascade
from cascade.imaging.writing import contact_sheet

COLOURS = {"red": (0.8, -0.8, -0.8), "blue": (-0.8, -0.6, 0.9)}


class Stripes(Dataset):
    """Coloured stripes (3, 16, 16) in [-1, 1], with the index of their colour."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = index % len(COLOURS)
        colour = torch.tensor(list(COLOURS.values())[label])[:, None, None]
        light = (torch.arange(16) + index) % 8 < 4
        return torch.where(light, torch.ones(3, 16, 16), colour), label


def make_trainer(folder: Path, images: int) -> cascade.Trainer:
    """A trainer that resumes the run in the folder, if there is one, up to a number of images."""
    torch.manual_seed(0)
    labels = cascade.Labels(fields={"colour": list(COLOURS)})
    stage = cascade.DiffusionStage.build(
        cascade.Contract(cascade.Space(size_px=16), (labels,)),
        cascade.NoiseProcess(cascade.NoiseSchedule("cosine"), prediction="x0"),
        network_options={"channels": [16, 32], "blocks": 1},
    )
    lasting = {"batch_size": 16, "learning_rate": 3e-3, "warmup_images": 64, "ema_decay": 0.9}
    settings = cascade.TrainingSettings(
        images=images, **lasting, sample_every_images=0, trackers=()
    )
    return cascade.Trainer(stage, Stripes(), folder / "run", settings)


def main(folder: Path) -> None:
    make_trainer(folder, 768).run()
    trainer = make_trainer(folder, 1536)
    print(f"resumed at image {trainer.state.images_seen}")
    stage = trainer.run().eval()
    inputs = cascade.Inputs({"labels": [{"colour": name} for name in COLOURS for _ in range(4)]})
    settings = stage.sampling.changed(steps=10)
    images = stage.run(range(8), inputs, run=cascade.Run(settings=settings))
    contact_sheet(images, columns=4).save(folder / "own_data.png")
    red, blue = images[:4].mean(dim=(0, 2, 3)), images[4:].mean(dim=(0, 2, 3))
    print(f"red minus blue: {red[0] - red[2]:.2f} in red, {blue[0] - blue[2]:.2f} in blue images")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

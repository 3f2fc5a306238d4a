"""Train a stage that follows captions on a data set of your own, and sample from new prompts.

A frozen encoder reads the captions; install it with `pip install "cascade-diffusion[text]"`.
Usage: python own_text.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from torch.utils.data import Dataset

import cascade
from cascade.imaging.writing import contact_sheet

COLOURS = {"red": (0.8, -0.8, -0.8), "green": (-0.8, 0.6, -0.8), "blue": (-0.8, -0.8, 0.9)}


class Balls(Dataset):
    """Balls on white (3, 16, 16) in [-1, 1], each with two captions, one of which is drawn."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> tuple[torch.Tensor, list[str]]:
        colour, x, y = list(COLOURS)[index % 3], 4 + index // 3 % 8, 4 + index // 12
        pixels = torch.arange(16)
        inside = (pixels - x) ** 2 + (pixels[:, None] - y) ** 2 < 16
        image = torch.where(inside, torch.tensor(COLOURS[colour])[:, None, None], torch.ones(()))
        return image, [f"a {colour} ball", f"ball, {colour}"]


def main(folder: Path) -> None:
    torch.manual_seed(0)
    text = cascade.Text.of_encoder("minilm-l6", max_tokens=12)
    stage = cascade.DiffusionStage.build(
        cascade.Contract(cascade.Space(size_px=16), (text,)),
        cascade.NoiseProcess(cascade.NoiseSchedule("cosine"), prediction="x0"),
        network="transformer",
        network_options={"patch_size": 4, "width": 64, "depth": 2, "fine_width": 32},
    )
    lasting = {"batch_size": 32, "learning_rate": 4e-3, "warmup_images": 128, "ema_decay": 0.9}
    settings = cascade.TrainingSettings(images=1920, **lasting, sample_every_images=0, trackers=())
    stage = cascade.Trainer(stage, Balls(), folder / "run", settings).run().eval()
    prompts = [f"a {colour} circle" for colour in COLOURS for _ in range(4)]  # no caption says so
    run = cascade.Run(settings=stage.sampling.changed(steps=10, guidance=2.0))
    drawn = stage.run(range(len(prompts)), cascade.Inputs({"prompt": prompts}), run=run)
    contact_sheet(drawn, columns=4).save(folder / "own_text.png")
    means = drawn.mean(dim=(2, 3)).unflatten(0, (len(COLOURS), 4)).mean(dim=1)  # (colours, 3)
    for prompt, mean in zip(prompts[::4], means, strict=True):
        print(f"{prompt}: most light is {list(COLOURS)[int(mean.argmax())]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

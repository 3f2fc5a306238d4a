"""A task of one's own is a class and a table entry: negatives that become positives."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import final

import torch
from huggingface_hub import ModelCard

from cascade.conditioning.condition import Condition
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.evaluation.card import write_results
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.report import render
from cascade.pipeline import CascadePipeline
from cascade.saving.model_card import Usage
from cascade.space import Space
from cascade.tasks import table
from cascade.tasks.task import PairedTask


@final
@dataclass(frozen=True, kw_only=True)
class Negative(Condition):
    """The image with inverted values."""

    name = "negative"
    input_name = "image"
    recipe = dict

    def slots(self, space):
        return Slots(channels=space.channels)

    def image_space(self, space):
        return space

    def description(self, space):
        return f"negative of {space.size_text}"

    def of_batch(self, batch, space, noise):
        return self._signals(self.input_of(batch, space))

    def of_request(self, request):
        return self._signals(request.image.to(request.device))

    def absent(self, signals):
        return self._signals(torch.zeros_like(signals.channels["negative"].image))

    def input_of(self, batch, space, *, degraded=False):
        return -batch.images

    def _signals(self, image):
        return Signals(channels={"negative": ChannelSignal(image, 1)})


@final
class Developing(PairedTask):
    name = "develop"
    description = "develops negatives"
    hub_type = "image-to-image"
    hub_title = "Development"
    baseline_name = "inverted"

    def suits(self, contracts):
        return contracts[0].condition("negative") is not None

    def command(self, folder):
        return f"cascade develop IMAGE --model {folder}"

    def usage(self, folder):
        return Usage(tags=("negatives",), command=self.command(folder), python=("pass",))

    def run(self, stages, inputs, seed):
        return stages[0].run([seed], inputs)[0]

    def baseline(self, inputs, space):
        return -inputs.get("image")[0]

    def figures(self, contracts):
        return {"sum": lambda result, inputs: float((result + inputs.get("image")).abs().mean())}


def test_it_is_evaluated_reported_and_shown_in_the_model_card(
    held_out, extractor, lite_of_random_weights, monkeypatch, tmp_path, fill_zeros
):
    monkeypatch.setattr(table, "TASKS", copy(table.TASKS))
    table.TASKS.append(Developing())
    stage = DiffusionStage.build(
        Contract(Space(size_px=16), (Negative(),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1},
    )
    pipeline = CascadePipeline.from_stages({"developer": fill_zeros(stage).eval()})
    evaluation = evaluate(pipeline, held_out, num_images=2, extractor=extractor)
    assert evaluation.task == "develop"
    inverted, whole = evaluation.measured
    assert (inverted.subject, inverted.input) == (
        "inverted",
        "held-out images, negative of 16 px",
    )
    assert inverted.score("PSNR, dB").value == 100  # it is the original itself
    assert inverted.score("sum").value == 0
    assert whole.score("sum").value > 0
    assert whole.score("sum").reference == "input images"
    assert "develops negatives; measured on held-out images" in render(evaluation)

    pipeline.save_pretrained(tmp_path / "developer")
    write_results(evaluation, tmp_path / "developer")
    card = ModelCard.load(tmp_path / "developer" / "README.md")
    assert card.data.tags == ["cascade-diffusion", "negatives"]
    assert "cascade develop IMAGE --model this/folder" in card.text
    assert {each.task_name for each in card.data.eval_results} == {"Development"}

"""A stage with more conditions begins with the outputs of the one that it starts from."""

from __future__ import annotations

import pytest
import torch

from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.networks.adm_unet import ADMUNet
from cascade.networks.embedding import embedding_for
from cascade.networks.imported_networks import StageADMUNet
from cascade.space import Space
from cascade.training.starting_point import start_from

OPTIONS = {
    "unet": {"channels": (8, 16), "blocks": 1, "patch_size": 2},
    "transformer": {"patch_size": 4, "width": 16, "depth": 1, "fine_width": 8, "fine_depth": 1},
    "adm_unet": {},
}
LABELS = Labels(fields={"animal": ["cat", "dog"]})
MORE_LABELS = Labels(fields={"art": ["ink"], "animal": ["cat", "dog"]})
LOW_RES = LowResolution(size_px=8)
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
T = torch.tensor([5, 900])


def make(kind, *conditions, size_px=16, shift=1.0, seed=0):
    torch.manual_seed(seed)
    contract = Contract(Space(size_px=size_px), conditions)
    process = NoiseProcess(NoiseSchedule(shift=shift))
    if kind != "adm_unet":
        options = {"network_options": OPTIONS[kind], "embedding_dim": 8}
        return DiffusionStage.build(contract, process, network=kind, **options)
    unet = ADMUNet(
        in_channels=3 + sum(each.channels for each in contract.slots.values()), out_channels=3,
        model_channels=32, block_out_channels=[32, 32], layers_per_block=1,
        attention=[False, False], head_channels=32,
    )  # fmt: skip
    embedding = embedding_for(contract.slots, 128)
    network = StageADMUNet(unet, embedding, patch_size=1, size_multiple_px=2)
    return DiffusionStage(network, process, contract)


def predict(stage, *, image=None):
    vectors = {}
    if "labels" in stage.contract.slots:
        fields = len(stage.contract.condition("labels").fields)
        vectors["labels"] = torch.tensor([[0, 1], [0, 0]])[:, 2 - fields :]
    channels = {}
    if "low_resolution" in stage.contract.slots:
        channels["low_resolution"] = ChannelSignal(torch.rand(2, 3, 8, 8), 2)
        vectors["low_resolution"] = torch.tensor([0.0, 0.7])
    with torch.no_grad():
        return stage.eval().predict(X, T, Signals(channels=channels, vectors=vectors))


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize(
    ("before", "now"),
    [((), (LABELS,)), ((LABELS,), (MORE_LABELS,))],
    ids=["first labels", "another field"],
)
def test_new_vectors_leave_every_bit_as_it_was(kind, before, now, fill_zeros):
    trained = fill_zeros(make(kind, *before))
    stage = make(kind, *now, seed=1)
    start_from(stage, trained)
    assert predict(stage).equal(predict(trained))


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("before", [(), (LABELS,)], ids=["no condition", "labels"])
def test_a_new_image_adds_nothing(kind, before, fill_zeros):
    trained = fill_zeros(make(kind, *before))
    stage = make(kind, *before, LOW_RES, seed=1)
    start = start_from(stage, trained)
    torch.testing.assert_close(predict(stage), predict(trained), rtol=1e-5, atol=1e-6)
    assert "vector of low_resolution" in start.new


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_adds_nothing_yet_can_learn(kind, fill_zeros):
    stage = make(kind, LABELS, LOW_RES, seed=1)
    start_from(stage, fill_zeros(make(kind)))
    x = X.clone().requires_grad_()
    vectors = {"labels": torch.tensor([[0], [1]]), "low_resolution": torch.tensor([0.0, 0.7])}
    image = {"low_resolution": ChannelSignal(torch.rand(2, 3, 8, 8), 2)}
    stage.predict(x, T, Signals(channels=image, vectors=vectors)).square().mean().backward()
    gradients = {name: each.grad for name, each in stage.named_parameters()}
    new = [name for name in gradients if "embedding.parts" in name or "class_embedding" in name]
    new += [name for name in gradients if "condition_embedding" in name]
    assert any(gradients[name] is not None and gradients[name].any() for name in new)


def test_another_size_and_another_schedule_are_stated():
    trained = make("unet", size_px=16)
    text = start_from(make("unet", size_px=32), trained).text()
    assert "32 px now, and had 16 px: a schedule shift of 0.5" in text
    assert "px" not in start_from(make("unet", size_px=32, shift=0.5), trained).text()
    linear = make("unet")
    linear.process = NoiseProcess(NoiseSchedule("linear"))
    assert "cosine with 1000 steps now, and was linear" in start_from(make("unet"), linear).text()

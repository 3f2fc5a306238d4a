"""Steps that share the features of coarse blocks (`reuse`), and networks in bf16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling import kept_features
from cascade.sampling.kept_features import KeptFeatures
from cascade.sampling.tiles import Tiles
from cascade.space import Space
from cascade.stage import Run

TILES = Tiles(32, 8)


@pytest.fixture
def transformer(fill_zeros) -> DiffusionStage:
    """A base stage of 16 px with a tiny transformer."""
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=16)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network="transformer",
        network_options={
            "patch_size": 4,
            "width": 16,
            "depth": 2,
            "fine_width": 16,
            "fine_depth": 1,
            "head_channels": 4,
        },
    )
    return fill_zeros(stage.eval())


class Plain(nn.Module):
    """Has no features to share."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        return self.weight * x_t


def draw(stage, image=None, tiles=None, *, seeds=(3,), labels=None, precision="fp32", **settings):
    run = Run(settings=stage.sampling.changed(**settings), tiles=tiles, precision=precision)
    return stage.run(list(seeds), Inputs({"image": image, "labels": labels}), run=run)


def coarse_calls(network: nn.Module) -> list[int]:
    """A list that grows by the batch size at every call of the coarse blocks."""
    calls: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return calls


@pytest.fixture
def image() -> Tensor:
    """(1, 3, 25, 38), which the upsampler makes 50 x 76 px."""
    return torch.rand(1, 3, 25, 38, generator=torch.Generator().manual_seed(3)) * 2 - 1


# ---- the networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base_stage", "transformer"])
@torch.no_grad()
def test_a_full_call_is_the_network_s_own_and_a_short_one_on_its_features_too(request, name):
    stage = request.getfixturevalue(name)
    x_t, t = torch.randn(2, 3, 16, 16), torch.tensor([70, 20])
    signals = Signals(vectors={"labels": torch.tensor([[0, 1], [1, 0]])})
    output, deep = stage.network.reusing(x_t, t, signals, None)
    assert output.equal(stage.network(x_t, t, signals))
    again, same = stage.network.reusing(x_t, t, signals, deep)
    assert same is deep
    assert again.equal(output)
    other, _ = stage.network.reusing(x_t + 0.1, t, signals, deep)
    assert 0 < (other - stage.network(x_t + 0.1, t, signals)).abs().max() < 1


# ---- walks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reuse", "full"), [(1, 5), (2, 3), (3, 2), (5, 1)])
def test_coarse_blocks_run_in_the_first_call_and_in_every_nth(base_stage, reuse, full):
    calls = coarse_calls(base_stage.network.backbone.mid_block)
    draw(base_stage, steps=5, reuse=reuse)
    assert calls == [1] * full


def test_the_coarse_blocks_of_a_transformer_run_in_every_nth_call(transformer):
    calls = coarse_calls(transformer.network.backbone.merge)
    whole, shared = (draw(transformer, steps=4, reuse=reuse) for reuse in (1, 2))
    assert len(calls) == 4 + 2
    assert 0 < (shared - whole).abs().mean() < 0.2


def test_reuse_1_changes_nothing(upsampler, low_res):
    assert draw(upsampler, low_res[:1], reuse=1).equal(draw(upsampler, low_res[:1]))


def test_nothing_is_shared_between_calls_or_images(upsampler, low_res):
    first = draw(upsampler, low_res[:2], seeds=(3, 4), reuse=2)
    draw(upsampler, low_res[2:4], seeds=(5, 6), reuse=2)
    assert draw(upsampler, low_res[:2], seeds=(3, 4), reuse=2).equal(first)
    alone = draw(upsampler, low_res[1:2], seeds=(4,), reuse=2)
    torch.testing.assert_close(alone, first[1:], rtol=0, atol=5e-5)


def test_the_halves_of_a_guided_step_keep_their_own_features(base_stage):
    calls = coarse_calls(base_stage.network.backbone.mid_block)
    labels = torch.tensor([[0, 1]])
    draw(base_stage, labels=labels, steps=4, guidance=2.0, reuse=2)
    assert calls == [2, 2]
    calls.clear()
    middle = base_stage.process.schedule
    sigma = [((1 - a) / a) ** 0.5 for a in (middle.alpha_bar_at(t) for t in (74, 49))]
    interval = (0.0, sum(sigma) / 2)  # the last two of the steps at 99, 74, 49 and 24
    draw(base_stage, labels=labels, steps=4, guidance=2.0, guidance_interval=interval, reuse=4)
    assert calls == [1, 2]


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_each_batch_of_tiles_keeps_its_own_features(upsampler, image, guidance):
    labels = torch.tensor([[0, 1]])
    values = {"labels": labels, "guidance": guidance, "steps": 4}
    exact = draw(upsampler, image, TILES, **values)
    shared = draw(upsampler, image, TILES, reuse=2, **values)
    assert 0 < (shared - exact).abs().mean() < 0.1


def test_features_that_do_not_fit_in_memory_are_refused(upsampler, image, monkeypatch):
    monkeypatch.setattr(kept_features, "free_bytes", lambda device: 1000)
    draw(upsampler, image, reuse=2)  # a single batch is part of what the network needs
    with pytest.raises(ContractError, match=r"reuse 2 keeps 0\.0 GiB of features for an image of"):
        draw(upsampler, image, TILES, reuse=2)


def test_features_are_those_of_the_same_group_and_no_older_than_asked():
    kept, features = KeptFeatures(3), torch.zeros(1)
    kept.begin_call("both")
    assert kept.features is None
    kept.keep(features)
    for expected in (features, features, None):
        kept.begin_call("both")
        assert kept.features is expected
    kept.keep(features)
    kept.begin_call("one")
    assert kept.features is None


def test_networks_without_such_features_are_refused(base_stage, upsampler):
    plain = DiffusionStage(Plain(), base_stage.process, Contract(Space(size_px=16)))
    with pytest.raises(ContractError, match="reuse must be 1 for this network, got 2; only U-Nets"):
        draw(plain, reuse=2)
    with pytest.raises(ContractError, match="reuse must be 1 for this network"):
        plain.check_settings(plain.sampling.changed(reuse=3))


@pytest.mark.parametrize("reuse", [0, -1, 1.5, "2"])
def test_reuse_is_a_whole_number_from_1_on(base_stage, reuse):
    with pytest.raises(ContractError, match="reuse must be"):
        base_stage.sampling.changed(reuse=reuse)


def test_features_are_shared_by_no_more_calls_than_there_are(base_stage):
    settings = base_stage.sampling.changed(steps=4, reuse=4)
    base_stage.check_settings(settings)
    expected = "reuse must be at most the number of calls of the network, which is 4 here; got 99"
    with pytest.raises(ContractError, match=expected):
        base_stage.with_sampling(settings.changed(reuse=99))
    base_stage.check_settings(settings.changed(sampler="heun", reuse=7))  # of 4 steps, 7 calls


# ---- weights in bf16 ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base_stage", "transformer"])
def test_a_copy_in_bf16_draws_the_same_but_for_rounding(request, name, monkeypatch):
    stage = request.getfixturevalue(name)
    before = {key: value.clone() for key, value in stage.network.state_dict().items()}
    copy = stage.network.for_bf16()
    dtypes = {each.dtype for each in copy.parameters()}
    assert torch.bfloat16 in dtypes
    x_t, t = torch.randn(2, 3, 16, 16), torch.tensor([70, 20])
    signals = Signals(vectors={"labels": torch.tensor([[0, 1], [1, 0]])})
    with torch.no_grad():
        exact = stage.network(x_t, t, signals)
        with torch.autocast("cpu", torch.bfloat16):
            slow, fast = stage.network(x_t, t, signals).float(), copy(x_t, t, signals).float()
    error = (slow - exact).pow(2).mean().sqrt()
    assert (fast - exact).pow(2).mean().sqrt() < 1.3 * error
    after = stage.network.state_dict()
    assert all(after[key].equal(before[key]) for key in before)
    assert {each.dtype for each in stage.network.parameters()} == {torch.float32}


def test_convolutions_of_a_copy_have_their_channels_last_and_the_rest_is_shared(base_stage):
    copy = base_stage.network.for_bf16()
    own = dict(base_stage.network.named_parameters())
    for name, parameter in copy.named_parameters():
        if parameter.dtype == torch.float32:
            assert parameter is own[name]
        elif parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("is_fast", [False, True])
def test_only_sampling_in_fast_bf16_uses_a_copy(base_stage, monkeypatch, is_fast):
    from cascade import devices, sampling_run

    for module in (devices, sampling_run):
        monkeypatch.setattr(module, "has_fast_bf16", lambda device: is_fast)
    copies = []
    original = type(base_stage.network).for_bf16
    monkeypatch.setattr(
        type(base_stage.network),
        "for_bf16",
        lambda network: copies.append(network) or original(network),
    )
    draw(base_stage, steps=1, precision="fp32")
    assert copies == []
    for precision in ("bf16", "auto"):
        draw(base_stage, steps=1, precision=precision)
    assert len(copies) == (2 if is_fast else 0)


def test_compiled_and_half_networks_are_not_copied(base_stage):
    network = base_stage.network
    network.backbone.mid_block.compile()
    assert network.for_bf16() is network
    network.backbone.mid_block._compiled_call_impl = None
    assert network.to(torch.bfloat16).for_bf16() is network

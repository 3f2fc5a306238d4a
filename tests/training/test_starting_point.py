from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from cascade.building.stages import build_stage
from cascade.conditioning.condition import Condition
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import Labels
from cascade.conditioning.text import Text
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.space import Space
from cascade.stage import Run, Stage
from cascade.stage_kinds import load_stage
from cascade.training.starting_point import start_from

NETWORKS = {
    "unet": {"channels": (8, 16), "blocks": 1},
    "transformer": {"patch_size": 4, "width": 16, "depth": 1, "fine_width": 8, "fine_depth": 1},
}
LABELS = Labels(fields={"animal": ["cat", "dog"]})
TEXT = Text(encoder="minilm", sha256="a" * 64, width=6, pooled_width=5)
TABLE = "network.embedding.parts.labels.0.weight"


def make_stage(*names: str, overrides: tuple[str, ...] = (), seed: int = 0) -> Stage:
    torch.manual_seed(seed)
    recipe = load_stage_recipe(find_recipe("tiny-16", "stages"), list(overrides))
    return build_stage(recipe, lambda fields: {field: list(names) for field in fields})


def test_all_weights_are_taken_over_and_classes_by_their_names():
    trained = make_stage("cat", "dog", "owl", seed=1)
    stage = make_stage("bee", "owl", "cat", overrides=("space.size_px=32",))
    new = stage.state_dict()[TABLE].clone()
    start_from(stage, trained)
    source = trained.state_dict()
    for name, tensor in stage.state_dict().items():
        if name != TABLE:
            assert tensor.equal(source[name]), name
    table, source = stage.state_dict()[TABLE], source[TABLE]
    assert table[0].equal(new[0])  # bee
    assert table[1].equal(source[2])  # owl
    assert table[2].equal(source[0])  # cat
    assert table[3].equal(source[3])  # any


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("diffusion.prediction=v",), "that stage predicts x0, this one v"),
        (("network.width=128",), "has shape .* the networks must be the same"),
        (("network.depth=3",), "no weights 'network.backbone.blocks.blocks.2"),
    ],
)
def test_what_does_not_fit_is_named(overrides, words):
    with pytest.raises(WeightsError, match=words):
        start_from(make_stage("cat", overrides=overrides), make_stage("cat"))


def test_what_is_predicted_must_be_the_same_with_residuals_too(colouriser):
    whole, residual = copy.deepcopy(colouriser), copy.deepcopy(colouriser)
    for stage, std in ((whole, None), (residual, 0.1)):
        stage.process = NoiseProcess(NoiseSchedule(), prediction="x0", residual_std=std)
    start_from(residual, copy.deepcopy(residual))
    with pytest.raises(WeightsError, match="let both or neither predict residuals"):
        start_from(residual, whole)


def test_another_deviation_of_residuals_is_remarked(colouriser):
    stages = []
    for std in (0.1, 0.25, 0.1):
        stages.append(copy.deepcopy(colouriser))
        stages[-1].process = NoiseProcess(NoiseSchedule(), prediction="x0", residual_std=std)
    text = start_from(stages[1], stages[0]).text()
    assert "the standard deviation of residuals is 0.25 now, and was 0.1" in text
    assert "residuals" not in start_from(stages[2], stages[0]).text()


def make_text_stage(kind: str, *conditions: Condition, **options) -> Stage:
    """Untrained, of 16 px."""
    torch.manual_seed(1)
    return DiffusionStage.build(
        Contract(Space(size_px=16), conditions),
        NoiseProcess(NoiseSchedule()),
        network=kind,
        network_options=NETWORKS[kind] | options,
        embedding_dim=8,
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_stage_with_an_image_embedding_starts_from_one_without(kind, fill_zeros):
    """Without an embedding it draws what that stage draws; what reads one begins anew."""
    trained = fill_zeros(make_text_stage(kind, LABELS, TEXT))
    embedding = ImageEmbedding(encoder="any", sha256="1" * 64, width=5)
    stage = make_text_stage(kind, LABELS, TEXT, embedding)
    start = start_from(stage, trained)
    tokens_width = stage.network.tokens.config["dim"]
    assert start.new == {
        "vector of image_embedding": 5 * 8 + 8,
        "tokens of image_embedding": (5 + 1) * 4 * tokens_width,
    }
    assert start.left_out == {}
    absent, given = (
        stage.eval().run(
            range(2),
            Inputs({"like": torch.randn(2, 5, 1, 1)}),
            run=Run(settings=stage.sampling.changed(guidance=guidance)),
        )
        for guidance in (0.0, 1.0)
    )
    torch.testing.assert_close(absent, trained.eval().run(range(2)))
    assert not given.allclose(absent)  # the cross-attention, trained already, reads the new tokens


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_stage_without_tokens_gets_cross_attention_for_an_image_embedding(kind, fill_zeros):
    trained = fill_zeros(make_text_stage(kind, LABELS))
    embedding = ImageEmbedding(encoder="any", sha256="1" * 64, width=5)
    stage = make_text_stage(kind, LABELS, embedding)
    start = start_from(stage, trained)
    assert {"cross-attention", "token embedding"} < start.new.keys()
    given = stage.eval().run(range(2), Inputs({"like": torch.randn(2, 5, 1, 1)}))
    assert given.equal(trained.eval().run(range(2)))


def test_a_gated_stage_starts_from_one_without_a_gate(fill_zeros):
    """Until it is trained, it draws what that stage draws."""
    trained = fill_zeros(make_text_stage("unet", LABELS, patch_size=2))
    stage = make_text_stage("unet", LABELS, patch_size=2, gated=True)
    start = start_from(stage, trained)
    assert start.new == {"gate": 12 * 8 * 9 + 12}
    assert start.left_out == {}
    assert stage.eval().run(range(2)).equal(trained.eval().run(range(2)))
    with pytest.raises(WeightsError, match=r"its network is gated; use network\.gated=true"):
        start_from(trained, stage)


@pytest.mark.parametrize("gated_first", [False, True])
def test_the_channels_of_a_gate_are_not_those_of_variances(gated_first):
    learned = NoiseProcess(NoiseSchedule(), learned_variance=True)
    stages = [
        DiffusionStage.build(
            Contract(Space(size_px=16)), process, network_options=NETWORKS["unet"] | options
        )
        for process, options in ((learned, {}), (NoiseProcess(NoiseSchedule()), {"gated": True}))
    ]
    with pytest.raises(WeightsError, match=r"gated|learns variances"):
        start_from(*(stages if gated_first else reversed(stages)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_stage_with_text_starts_from_one_without(kind, fill_zeros):
    trained = fill_zeros(make_text_stage(kind, LABELS))
    stage = make_text_stage(kind, Labels(fields={"animal": ["owl", "cat"], "art": ["ink"]}), TEXT)
    before = stage.state_dict()
    start = start_from(stage, trained)
    assert list(start.new) == [
        "animal owl",
        "all classes of art",
        "cross-attention",
        "token embedding",
        "embedding of pooled tokens",
    ]
    assert start.left_out == {"animal dog": 8}
    new = {f"network.{n}" for names in stage.network.token_weights.values() for n in names}
    weights, source = stage.state_dict(), trained.state_dict()
    assert all(weights[name].equal(before[name]) for name in new)
    rest = [name for name in weights if name not in new and "embedding.parts" not in name]
    assert all(weights[name].equal(source[name]) for name in rest)
    words = start.text()
    assert (
        "are newly initialised (animal owl, all classes of art, cross-attention, token "
        "embedding, …)" in words
    )


def test_everything_but_text_must_still_match():
    stage = make_text_stage("transformer", LABELS, TEXT, depth=2)
    with pytest.raises(WeightsError, match=r"has no weights 'network\.backbone\.blocks\.blocks\.1"):
        start_from(stage, make_text_stage("transformer", LABELS))


def test_self_attention_of_a_unet_cannot_become_attention_to_tokens_too():
    attention = {"attention": (False, True)}
    trained = make_text_stage("unet", LABELS, **attention)
    with pytest.raises(WeightsError, match="it has self-attention, which is another layer in a U"):
        start_from(make_text_stage("unet", LABELS, TEXT, **attention), trained)
    with pytest.raises(WeightsError, match="one of the two has self-attention"):
        start_from(
            make_text_stage("unet", LABELS, TEXT, **attention),
            make_text_stage("unet", LABELS, TEXT),
        )


def test_stages_with_other_text_encoders_are_refused():
    trained = make_text_stage("transformer", TEXT)
    start_from(make_text_stage("transformer", dataclasses.replace(TEXT, max_tokens=9)), trained)
    for other in ({"sha256": "b" * 64}, {"encoder": "t5"}):
        stage = make_text_stage("transformer", dataclasses.replace(TEXT, **other))
        with pytest.raises(WeightsError, match=r"text encoder is minilm.*use the same encoder"):
            start_from(stage, trained)


def test_a_run_starts_from_a_trained_stage_and_resumes_from_its_own_checkpoint(
    make_trainer, tmp_path, trained
):
    start = f"train.init_from={trained.base}"
    trainer = make_trainer(tmp_path / "run", start, "train.images=32")
    source = load_stage(trained.base / "stage").state_dict()
    for name, tensor in trainer.state.stage.state_dict().items():
        assert tensor.equal(source[name]), name
    for name, tensor in zip(source, trainer.state.ema.shadow_params, strict=True):
        assert tensor.equal(source[name]), name
    trainer.run()
    again = make_trainer(tmp_path / "run", "train.init_from=moved/away", "train.images=32")
    pairs = zip(again.state.ema.shadow_params, trainer.state.ema.shadow_params, strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_a_start_that_is_not_there_is_a_clear_error(make_trainer, tmp_path):
    with pytest.raises(WeightsError, match="no trained stage in nowhere; train it first"):
        make_trainer(tmp_path, "train.init_from=nowhere")

"""Alignment of images with their captions: retrieval, towers, CLIP, and what refuses."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascade.chain import StageChain
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, DataError, WeightsError
from cascade.evaluation.alignment.captions import Captions, contrasting, read_captions, text_of
from cascade.evaluation.alignment.finding import find_alignment, find_judge
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.alignment.retrieval import better_captions, retrieval_rate
from cascade.evaluation.alignment.tower import AlignmentTower
from cascade.evaluation.card import eval_results
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.report import render
from cascade.evaluation.results import Evaluation
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.vision.efficientnet import EfficientNetLite
from cascade.vision.tower import Tower, TowerFacts, TowerHead, load_tower

R1 = "R@1-Colours"


@pytest.fixture
def pictures(colour_pictures):
    return RealPictures(colour_pictures, name="held-out images")


@pytest.fixture
def judge(colour_model, pictures, prompted):
    return AlignmentJudge(colour_model, read_captions(pictures, text_of(prompted)))


@pytest.fixture
def embeddings(colour_model, pictures):
    """Of the real pictures, in their order."""
    return colour_model.image_embeddings(pictures.read(range(16), Space(size_px=32)))


@pytest.fixture
def measure(extractor, tmp_path):
    def run(pipeline, data, **options) -> Evaluation:
        options = {"extractor": extractor, "cache_dir": tmp_path / "cache"} | options
        return evaluate(pipeline, data, **options)

    return run


# ---- retrieval ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nearest", [1, 2, 3])
@pytest.mark.parametrize("better", [0, 2, 5, 6])
def test_retrieval_is_the_mean_over_all_draws(better, nearest):
    draws = list(itertools.combinations(range(6), 3))  # the rivals 0, 1, … are the better ones
    hits = [sum(rival < better for rival in draw) < nearest for draw in draws]
    rate = retrieval_rate(torch.tensor([better]), torch.tensor([6]), choices=4, nearest=nearest)
    assert float(rate) == pytest.approx(sum(hits) / len(draws))


def test_a_rival_that_is_as_near_counts_against_the_own_caption():
    near = torch.eye(3)[[0, 0, 1]]
    rivals = torch.tensor([[False, True, True]])
    assert better_captions(torch.eye(3)[:1], near, torch.tensor([0]), rivals).tolist() == [1]


def test_right_captions_are_found_always_and_shuffled_ones_by_chance(judge, embeddings):
    assert judge.choices == 15  # two styles of eight colours, without the same colour's other one
    assert judge.figures(embeddings, range(16))[R1].tolist() == [1.0] * 16
    captions = judge.captions
    order = [captions.phrasings.index((f"{each}, flat", each, f"flat style: {each}"))
             for each in ("dark red", "dark green", "dark blue", "dark yellow")]  # fmt: skip
    few = Captions([(captions.phrasings[place][1],) for place in order], [{}] * 4, ["a"] * 4)
    four, rates = AlignmentJudge(judge.model, few), []
    for shift in range(4):
        images = embeddings[[*order[shift:], *order[:shift]]]
        rates.append(float(four.figures(images, range(4))[R1].mean()))
    assert rates == [1.0, 0.0, 0.0, 0.0]  # over all shifts 1 in 4, as `by chance` states
    scores = {
        score.name: score.value for score in four.scores(embeddings[order], embeddings[order])
    }
    assert scores[f"{R1} by chance"] == 1 / 4


def test_a_picture_has_the_same_figures_in_any_batch(judge, embeddings):
    images = embeddings.flip(0)  # mostly wrong captions
    together = judge.figures(images, range(16))
    for place in (0, 3, 15):
        alone = judge.figures(images[place : place + 1], [place])
        assert {name: float(each) for name, each in alone.items()} == {
            name: float(each[place]) for name, each in together.items()
        }


def test_captions_of_the_same_thing_are_no_rivals(judge):
    captions = judge.captions
    place = next(i for i, each in enumerate(captions.phrasings) if each[0] == "dark red, flat")
    others = [text for text, is_rival in zip(captions.texts, captions.rivals[place], strict=True)
              if not is_rival]  # fmt: skip
    assert sorted(others) == ["dark red, flat", "dark red, round"]


def test_prompts_are_those_that_the_pipeline_gets(judge, pictures, prompted):
    prompts = pictures.inputs(range(16), prompted.stages.contracts, degraded=False).get("prompt")
    assert [each[0] for each in judge.captions.phrasings] == prompts


def test_one_caption_or_none_is_one_line(colour_model):
    with pytest.raises(DataError, match="at least 2 different captions"):
        AlignmentJudge(colour_model, Captions([("Dark red",), ("dark red",), ()], [{}] * 3, "abc"))


def test_pictures_that_the_model_was_trained_on_are_left_out(judge, embeddings, pictures):
    judge.model.trained_on = [pictures.key(0), pictures.key(5)]
    judged = AlignmentJudge(judge.model, judge.captions)
    assert judged.figures(embeddings, range(16))[R1].isnan().nonzero().flatten().tolist() == [0, 5]
    assert judged.scores(embeddings, embeddings)[0].n == 14
    assert "was trained on 2 of 16 held-out images" in judged.notes()[0]
    judge.model.trained_on = [pictures.key(place) for place in range(16)]
    with pytest.raises(DataError, match="trained on all"):
        AlignmentJudge(judge.model, judge.captions)


def test_a_word_is_exchanged_as_a_whole():
    words = ["fluent", "fluent flat", "noto"]
    assert contrasting("a Fluent cat", "fluent", words) == [
        "a Fluent cat", "a fluent flat cat", "a noto cat",
    ]  # fmt: skip
    assert contrasting("cat, noto", "noto", words)[1:] == ["cat, fluent", "cat, fluent flat"]
    assert contrasting("a notorious cat", "noto", words) == []


def test_a_word_counts_where_it_fits_better_than_the_others(colour_model):
    colour_model.contrasts = {"shade": {"1": "dark", "2": "bright"}}
    captions = Captions(
        [("dark red",), ("bright blue",), ("bright red",), ("dark blue",)],
        [{"shade": "1"}, {"shade": "2"}, {}, {"shade": "2"}],
        "abcd",
    )
    judge = AlignmentJudge(colour_model, captions)
    right = colour_model.text_embeddings(captions.texts)
    name = "shade accuracy-Colours"
    figures = judge.figures(right, range(4))[name]
    assert figures[:2].tolist() == [1, 1]
    assert figures[2:].isnan().all()  # no annotation, and another word than the annotation's
    assert judge.figures(right[[2, 3]], range(2))[name].tolist() == [0, 0]
    score = next(score for score in judge.scores(right, right) if score.name == name)
    assert (score.n, score.reference, score.n_reference) == (2, "words for shade", 2)


# ---- towers -------------------------------------------------------------------------------------


@pytest.fixture
def tower(letters):
    """A tower that takes two styles for a thing's first or second letter; random weights."""
    torch.manual_seed(0)
    facts = TowerFacts(
        name="Tiny", encoder=letters, size_px=32, width=16, training="nothing",
        trained_on=("a", "b"), contrasts={"style": {"flat": "flat", "round": "round"}},
    )  # fmt: skip
    network = EfficientNetLite().eval()
    return AlignmentTower(Tower(facts, TowerHead(1280 + 288, letters.pooled_width, 16), network))


@pytest.fixture
def lite(monkeypatch, tower):
    """The package's EfficientNet is the tower's, with random weights."""
    from cascade.vision import tower as module

    monkeypatch.setattr(module, "load_efficientnet", lambda size: tower.network["network"])


def test_a_tower_is_read_back_as_it_was_written(tower, lite, tmp_path):
    tower.tower.write(tmp_path)
    loaded = find_alignment(tmp_path)
    assert loaded.tower.tower_facts == tower.tower.tower_facts
    assert loaded.tower.facts == tower.tower.facts
    images = torch.rand(2, 3, 48, 48) * 2 - 1
    for ours, theirs in (
        (loaded.image_embeddings(images), tower.image_embeddings(images)),
        (loaded.text_embeddings(["red", ""]), tower.text_embeddings(["red", ""])),
    ):
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)  # bfloat16
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(2))


def test_an_image_has_the_same_embedding_in_any_batch(tower):
    images = torch.rand(3, 3, 40, 40) * 2 - 1
    together = tower.image_embeddings(images)
    torch.testing.assert_close(tower.image_embeddings(images[1:2]), together[1:2])


def test_another_text_encoder_is_one_line(tower):
    facts = tower.tower.tower_facts
    facts = replace(facts, encoder=replace(facts.encoder, sha256="1" * 64))
    other = AlignmentTower(Tower(facts, tower.network["head"], tower.network["network"]))
    with pytest.raises(ContractError, match=r"'letters' must be .*111111.*but .*000000"):
        other.text_embeddings(["red"])


def test_a_tower_does_not_judge_the_pipeline_that_it_steers(tower, prompted, pictures):
    own = tower.tower.facts
    condition = ImageEmbedding(encoder=own.name, sha256=own.sha256, width=own.width)
    base = prompted.stages["base"]
    steered = DiffusionStage.build(
        Contract(base.space, (*base.conditions, condition)), base.process, network="transformer",
        network_options={"width": 32, "depth": 1, "patch_size": 4}, embedding_dim=32,
    )  # fmt: skip
    prior = DiffusionStage.build(
        Contract(own.space), base.process, network="mlp", network_options={"width": 32, "depth": 1}
    )
    chain = StageChain({"prior": prior, "base": steered})
    with pytest.raises(ContractError, match="Tiny conditions this pipeline, so it cannot evaluate"):
        find_judge(CascadePipeline(chain), pictures, tower)


def test_a_damaged_tower_is_one_line(tower, lite, tmp_path):
    with pytest.raises(WeightsError, match=r"no model of alignment in .*or clip for a download"):
        find_alignment(tmp_path)
    tower.tower.write(tmp_path)
    state = load_file(tmp_path / "alignment.safetensors")
    save_file({**state, "mean": state["mean"][:5].clone()}, tmp_path / "alignment.safetensors")
    with pytest.raises(WeightsError, match="not the weights of a tower"):
        load_tower(tmp_path)
    (tmp_path / "alignment.json").write_text(json.dumps({"name": "Tiny"}))
    with pytest.raises(WeightsError, match="does not describe a tower"):
        load_tower(tmp_path)


# ---- CLIP ---------------------------------------------------------------------------------------


def tiny_clip(folder):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    words = ["<pad>", "<start>", "<end>", "<unk>", "red", "blue", "flat"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", model_max_length=8
    )
    fast.save_pretrained(folder)
    config = transformers.CLIPConfig(
        text_config=half | {"vocab_size": 7, "max_position_embeddings": 8, "eos_token_id": 2},
        vision_config=half | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    network = transformers.CLIPModel(config).eval()
    network.save_pretrained(folder)
    return network, fast


def test_clip_is_that_of_transformers_with_the_score_of_its_cosines(tmp_path):
    network, tokenizer = tiny_clip(tmp_path)
    model = find_alignment(tmp_path)
    images, texts = torch.rand(2, 3, 32, 32) * 2 - 1, ["red flat", "blue"]
    images = (images * 127.5).round() / 127.5
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    pixels = ((images + 1) / 2 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        output = network(pixel_values=pixels, **tokenizer(texts, padding=True, return_tensors="pt"))
    ours = model.image_embeddings(images) @ model.text_embeddings(texts).T
    torch.testing.assert_close(
        ours, output.logits_per_image / network.logit_scale.exp(), atol=2e-3, rtol=0
    )
    judge = AlignmentJudge(model, Captions([(text,) for text in texts], [{}] * 2, "ab"))
    figures = judge.figures(model.image_embeddings(images), range(2))
    expected = 100 * ours.diagonal().clamp(min=0)
    torch.testing.assert_close(figures["CLIP score-CLIP-16/8"], expected)


def test_half_a_clip_is_one_line(tmp_path):
    network, _ = tiny_clip(tmp_path)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("text_model")}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(WeightsError, match="not the weights of a whole CLIP"):
        find_alignment(tmp_path)


# ---- evaluations --------------------------------------------------------------------------------


def test_every_stage_is_judged_beside_real_pictures_and_chance(
    prompted, colour_pictures, colour_model, measure
):
    evaluation = measure(prompted, colour_pictures, alignment=colour_model)
    judged = [each for each in evaluation.measured if each.score("R@1")]
    assert [each.subject for each in judged] == ["base", "upsampler, alone", "whole pipeline"]
    for each in judged:
        score = each.score(R1)
        assert (score.n, score.reference, score.n_reference) == (16, "captions", 15)
        assert each.score(f"{R1} of held-out images").value == 1
        assert each.score(f"{R1} by chance").value == pytest.approx(1 / 15)
        assert score.low <= score.value <= score.high
    assert any("among 15 captions instead of 100" in note for note in evaluation.notes)
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation
    assert R1 in render(evaluation)
    assert R1 in [each.metric_name for each in eval_results(evaluation)]


def test_images_are_made_from_captions_alone(prompted, colour_pictures, colour_model, measure):
    evaluation = measure(prompted, colour_pictures, alignment=colour_model, seed=3)
    pictures = RealPictures(colour_pictures, name="")
    contracts = prompted.stages.contracts
    prompts = pictures.inputs(range(16), contracts, degraded=False).only(["prompt"])
    prompted.set_progress_bar_config(disable=True)
    images = prompted(num_images=16, seed=3, inputs=prompts.values, output_type="pt").images
    judge = AlignmentJudge(colour_model, read_captions(pictures, text_of(prompted)))
    figures = judge.figures(colour_model.image_embeddings(images), range(16))
    assert evaluation.whole.score(R1).value == pytest.approx(float(figures[R1].mean()), abs=1e-6)


def test_pipelines_without_prompts_are_refused(cascade, upsampler, held_out, measure, colour_model):
    with pytest.raises(ContractError, match="no stage of this pipeline takes text"):
        measure(cascade, held_out, alignment=colour_model)
    with pytest.raises(ContractError, match="this pipeline takes images"):
        measure(CascadePipeline.from_stages({"up": upsampler}), held_out, alignment=colour_model)

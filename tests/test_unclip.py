"""unCLIP: a prior makes image embeddings from texts, a decoder makes pictures from embeddings.

Facts about Gaussian embeddings are in closed form: the mean that a prior samples is the linear
regression of the embedding on the text.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from cascade.building.stages import check_stage
from cascade.conditioning.batch import Batch
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.text import Text
from cascade.contract import Contract
from cascade.data.embedded_images import embed_images
from cascade.data.source import ImageSource
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, ContractError, DataError
from cascade.evaluation.evaluate import evaluate
from cascade.imaging.exchange import to_tensor
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.stage import Run
from cascade.stage_kinds import load_stage
from cascade.tasks.table import task_of
from cascade.text import encoders
from cascade.training.objectives.denoising import Denoising
from cascade.vision.encoder import VisionFacts
from cascade.vision.encoders import vision_encoder_of

PLAIN = SamplingSettings(steps=20, sampler="ddim", threshold="none")
COLOURS = {
    "red": (0.8, -0.7, -0.7),
    "green": (-0.7, 0.7, -0.6),
    "blue": (-0.8, -0.6, 0.8),
    "yellow": (0.8, 0.7, -0.8),
}


def text_of(letters, drop: float = 0.1) -> Text:
    return Text(
        fields=("captions",), encoder=letters.name, sha256=letters.sha256, width=letters.width,
        pooled_width=letters.pooled_width, max_tokens=20, drop=drop,
    )  # fmt: skip


def pooled(letters, words) -> torch.Tensor:
    return torch.stack(
        [each.pooled for each in encoders.encoder_of(letters).encode(words, 8)]
    ).float()


def embedded(facts: VisionFacts, drop: float = 0.1) -> ImageEmbedding:
    return ImageEmbedding(encoder=facts.name, sha256=facts.sha256, width=facts.width, drop=drop)


# ---- Gaussian embeddings ------------------------------------------------------------------------

WORDS = ["a", "bb", "cab", "dd", "abe", "face", "bead", "fed"]
VECTORS = Space(size_px=1, channels=4, kind="embeddings")


class BestPrior(nn.Module):
    """The optimal prediction of x0 ~ N(W c, s²) from x_t and the text's pooled vector c."""

    def __init__(self, schedule: NoiseSchedule, weights: torch.Tensor, std: float) -> None:
        super().__init__()
        self.schedule, self.std = schedule, std
        self.weights = nn.Parameter(weights)

    def forward(self, x_t, t, signals):
        mean = (signals.vectors["text"] @ self.weights.T)[..., None, None]
        alpha_bar = self.schedule.alpha_bar.to(torch.float32)[t.long()].view(-1, 1, 1, 1)
        alpha, variance = alpha_bar.sqrt(), self.std**2
        gain = alpha * variance / (alpha_bar * variance + 1 - alpha_bar)
        return mean + gain * (x_t - alpha * mean)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_mean_of_the_optimal_prior_is_the_linear_regression(letters, sampler):
    """Means reach 6, so anything that clips to [-1, 1] on the way would show."""
    schedule = NoiseSchedule("cosine", train_steps=1000)
    weights = 1.5 * torch.randn(4, 26, generator=torch.Generator().manual_seed(0))
    prior = DiffusionStage(
        BestPrior(schedule, weights, 0.5),
        NoiseProcess(schedule, prediction="x0"),
        Contract(VECTORS, (text_of(letters),)),
        sampling=PLAIN.changed(sampler=sampler, steps=100),
    )
    samples = prior.run(range(400), Inputs({"prompt": ["cab"] * 400})).flatten(1)
    mean = (pooled(letters, ["cab"]) @ weights.T)[0]
    assert mean.abs().max() > 3
    torch.testing.assert_close(samples.mean(dim=0), mean, atol=4 * 0.5 / 20, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), torch.full((4,), 0.5), atol=0.08, rtol=0)


def test_a_trained_prior_predicts_the_linear_regression_from_noise_alone(letters):
    draw = torch.Generator().manual_seed(1)
    texts = [WORDS[int(i)] for i in torch.randint(len(WORDS), (64,), generator=draw)]
    weights = torch.randn(4, 26, generator=draw)
    given = pooled(letters, texts)
    vectors = given @ weights.T + 0.5 * torch.randn(64, 4, generator=draw)
    fit = given @ torch.linalg.lstsq(given, vectors, driver="gelsd").solution
    torch.manual_seed(0)
    prior = DiffusionStage.build(
        Contract(VECTORS, (text_of(letters, drop=0.0),)),
        NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0", timesteps="last"),
        network="mlp",
        network_options={"width": 64, "depth": 1},
        sampling=PLAIN.changed(steps=1),
    )
    optimiser = torch.optim.AdamW(prior.parameters(), lr=2e-2, weight_decay=0.0)
    for step in range(50):
        for group in optimiser.param_groups:
            group["lr"] = 2e-2 * (1 - step / 50)
        seeds = tuple(range(64 * step, 64 * (step + 1)))
        batch = Batch(
            images=vectors[..., None, None],
            seeds=seeds,
            conditions={"text": tuple((text,) for text in texts)},
        )
        optimiser.zero_grad()
        Denoising().loss(prior, batch).mean().backward()
        optimiser.step()
    predicted = prior.eval().run(range(64), Inputs({"prompt": texts})).flatten(1)
    assert ((predicted - fit) ** 2).mean() < 0.02 * fit.var()


def test_vectors_are_clipped_neither_in_training_nor_in_sampling(letters):
    """With the true vector as its prediction, the loss is 0 and the sample is that vector."""

    class Truth(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((1, 4, 1, 1), 7.0))

        def forward(self, x_t, t, signals):
            return self.weight.expand(len(x_t), -1, -1, -1)

    stage = DiffusionStage(
        Truth(), NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0"), Contract(VECTORS)
    )
    batch = Batch(images=torch.full((3, 4, 1, 1), 7.0), seeds=(0, 1, 2))
    assert Denoising().loss(stage, batch).abs().max() == 0
    assert stage.sampling.threshold == "none"
    sample = stage.run(range(3), run=Run(settings=PLAIN))
    torch.testing.assert_close(sample, torch.full((3, 4, 1, 1), 7.0))


# ---- a toy: four captions, four colours ---------------------------------------------------------


def picture(name: str, seeds: range) -> torch.Tensor:
    """Pictures (B, 3, 8, 8) of a colour, a little lighter or darker."""
    shade = torch.stack([torch.randn(1, 1, generator=torch.Generator().manual_seed(each))
                         for each in seeds])  # fmt: skip
    return (
        (torch.tensor(COLOURS[name]).view(1, 3, 1) + 0.05 * shade)
        .expand(-1, -1, 64)
        .unflatten(2, (8, 8))
    )


def fit(stage: DiffusionStage, images: torch.Tensor, conditions: dict, steps: int, lr: float):
    """Train a stage on all of its images at once."""
    optimiser = torch.optim.AdamW(stage.parameters(), lr=lr, weight_decay=0.0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        first = len(images) * step
        seeds = tuple(range(first, first + len(images)))
        batch = Batch(images=images, seeds=seeds, conditions=conditions)
        optimiser.zero_grad()
        Denoising().loss(stage, batch).mean().backward()
        nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimiser.step()
    return stage.eval()


@pytest.fixture(scope="module")
def toy_letters(letter_encoder):
    """The text encoder that counts letters, for tests that share trained stages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "find_encoder", lambda name: letter_encoder())
        encoders.encoder_of.cache_clear()
        yield letter_encoder.facts
    encoders.encoder_of.cache_clear()


@pytest.fixture(scope="module")
def toy(toy_letters, colour_vision) -> CascadePipeline:
    """A prior and a decoder that know four colours."""
    names = [name for name in COLOURS for _ in range(4)]
    images = torch.cat([picture(name, range(4)) for name in COLOURS])  # (16, 3, 8, 8)
    embeddings = vision_encoder_of(colour_vision).encode(images)
    process = NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0")
    torch.manual_seed(0)
    prior = DiffusionStage.build(
        Contract(colour_vision.space, (text_of(toy_letters),)), process,
        network="mlp", network_options={"width": 64, "depth": 1}, embedding_dim=32,
        sampling=PLAIN.changed(steps=10),
    )  # fmt: skip
    fit(prior, embeddings, {"text": tuple((name,) for name in names)}, 60, 6e-3)
    decoder = DiffusionStage.build(
        Contract(Space(size_px=8), (embedded(colour_vision),)), process,
        network="transformer", embedding_dim=32,
        network_options={"width": 32, "depth": 1, "patch_size": 4, "fine_width": 16,
                         "fine_depth": 1, "head_channels": 8},
        sampling=SamplingSettings(steps=6),
    )  # fmt: skip
    fit(decoder, images, {"image_embedding": embeddings}, 80, 6e-3)
    pipeline = CascadePipeline.from_stages({"prior": prior, "decoder": decoder})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def named(images: torch.Tensor) -> list[str]:
    """The nearest colour of each picture (B, 3, H, W)."""
    centres = torch.tensor(list(COLOURS.values()))
    distances = torch.cdist(images.mean(dim=(2, 3)), centres)
    return [list(COLOURS)[place] for place in distances.argmin(dim=1).tolist()]


def test_the_true_embedding_gives_the_class_of_its_picture(toy):
    names = [name for name in COLOURS for _ in range(8)]
    images = torch.cat([picture(name, range(100, 108)) for name in COLOURS])
    result = toy(like=images, seed=5, output_type="pt")
    assert named(result.images) == names
    assert list(result.settings) == ["decoder"]


def test_a_caption_gives_its_colour_by_way_of_an_embedding(toy):
    names = [name for name in COLOURS for _ in range(8)]
    result = toy(names, seed=5, output_type="pt", keep_intermediates=True)
    right = sum(a == b for a, b in zip(named(result.images), names, strict=True))
    assert right >= 31
    assert result.intermediates["prior"].shape == (32, 16, 1, 1)
    assert toy("red", keep_intermediates=True).intermediates["prior"].shape == (1, 16, 1, 1)


def test_an_embedding_is_nearer_to_that_of_its_own_caption_s_picture(toy, colour_vision):
    names = [name for name in COLOURS for _ in range(16)]
    made = toy.stages["prior"].run(range(64), Inputs({"prompt": names})).flatten(1)
    true = torch.cat([vision_encoder_of(colour_vision).encode(picture(name, range(200, 216)))
                      for name in COLOURS]).flatten(1)  # fmt: skip
    own = nn.functional.cosine_similarity(made, true)
    shuffled = nn.functional.cosine_similarity(made, true.roll(16, dims=0))
    difference = own - shuffled
    assert difference.mean() > 3 * difference.std() / 8
    assert own.mean() > 0.9


def test_guidance_0_leaves_the_embedding_out_and_1_is_the_stage_itself(toy):
    decoder = toy.stages["decoder"]
    like = toy.stages["prior"].run(range(4), Inputs({"prompt": list(COLOURS)}))
    plain, none, more = (
        decoder.run(range(4), previous=like, run=Run(settings=decoder.sampling.changed(guidance=g)))
        for g in (1.0, 0.0, 1.5)
    )
    unguided = Run(settings=decoder.sampling.changed(guidance=0.0))
    assert decoder.run(range(4), previous=like.roll(1, 0), run=unguided).equal(none)
    assert plain.equal(decoder.run(range(4), previous=like))
    assert (plain - none).abs().mean() > 0.05
    assert not more.equal(plain)


# ---- chains and calls ---------------------------------------------------------------------------


def test_variations_start_at_the_decoder_and_differ_by_seed(toy, colour_vision):
    like = Image.new("RGB", (30, 20), (230, 40, 40))
    four = toy(like=like, num_images=4, seed=3, output_type="pt", precision="fp32")
    assert four.images.shape == (4, 3, 8, 8)
    assert four.seeds == [3, 4, 5, 6]
    assert not four.images[0].equal(four.images[1])
    later = toy(like=like, seed=5, output_type="pt", precision="fp32")
    torch.testing.assert_close(later.images[0], four.images[2], atol=1e-5, rtol=0)
    embedding = vision_encoder_of(colour_vision).encode(to_tensor(like))
    direct = toy.stages["decoder"].run([3], previous=embedding, run=Run(stream="stage decoder"))
    torch.testing.assert_close(direct, four.images[:1], atol=1e-5, rtol=0)
    given = toy(inputs={"like": embedding}, seed=3, output_type="pt", precision="fp32")
    assert given.images.equal(direct)
    assert list(given.settings) == ["decoder"]


def test_the_task_of_a_prior_and_a_decoder_is_drawing(toy):
    assert task_of(toy.stages.contracts).name == "draw"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": "other"}, "'prior' gives encoder_name colours, 'decoder' takes other"),
        ({"sha256": "9" * 64}, "gives encoder 111111111111, 'decoder' takes 999999999999"),
        ({"width": 12}, "'prior' gives channels 16, 'decoder' takes 12"),
    ],
)
def test_an_embedding_of_another_encoder_or_width_is_refused(toy, fill_zeros, change, words):
    decoder = toy.stages["decoder"]
    condition = replace(decoder.conditions[0], **change)
    other = DiffusionStage.build(
        Contract(decoder.space, (condition,)), decoder.process, network="unet",
        network_options={"channels": (8,), "blocks": 1}, embedding_dim=32,
    )  # fmt: skip
    with pytest.raises(ContractError, match=f"stages do not fit together: .*{words}"):
        CascadePipeline.from_stages({"prior": toy.stages["prior"], "decoder": other})


def test_a_decoder_follows_no_stage_that_gives_pixels(toy, base_stage):
    with pytest.raises(ContractError, match="'base' gives size_px 16x16, 'decoder' takes 1x1"):
        CascadePipeline.from_stages({"base": base_stage, "decoder": toy.stages["decoder"]})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"like": torch.rand(3, 3, 8, 8), "num_images": 2}, "got 3 images as like for 2 results"),
        ({"like": torch.rand(1, 3, 8, 8), "image": torch.rand(1, 3, 8, 8)}, "exclude each other"),
        ({"like": torch.rand(1, 3, 8, 8), "start_at": "prior"}, "start_at 'prior' does not fit"),
        (
            {"inputs": {"like": torch.rand(1, 12, 1, 1)}},
            r"must be \(B, 16, 1, 1\), those of",
        ),
        ({"like": torch.rand(1, 4, 8, 8)}, r"must be \(B, 1 or 3, H, W\), got \(1, 4, 8, 8\)"),
        ({"like": "picture.png"}, "got 'picture.png'; open the file first"),
    ],
)
def test_a_picture_to_vary_that_does_not_fit_is_one_line(toy, arguments, words):
    with pytest.raises(ContractError, match=words):
        toy(**arguments)


def test_a_decoder_without_a_picture_or_a_prior_is_one_line(toy):
    alone = CascadePipeline.from_stages({"decoder": toy.stages["decoder"]})
    with pytest.raises(ContractError, match="needs an image to start from: embedding of colours"):
        alone(num_images=1)
    with pytest.raises(ContractError, match="put a prior before it, or give an image as 'like'"):
        toy.stages["decoder"].run([0])


def test_a_pipeline_without_image_embeddings_takes_no_picture_to_vary(cascade):
    with pytest.raises(ContractError, match=r"no stage of this pipeline .* reads 'like'"):
        cascade(like=torch.rand(1, 3, 8, 8))


def test_a_decoder_is_measured_alone_and_behind_its_prior(
    toy, colour_pictures, extractor, tmp_path
):
    result = evaluate(
        toy, colour_pictures, extractor=extractor, cache_dir=tmp_path, num_images=16, seed=0
    )
    subjects = [each.subject for each in result.measured]
    assert subjects[0] == "decoder, alone"
    assert subjects[-1] == "whole pipeline"
    assert all(each.subject != "prior" for each in result.measured)  # vectors are no pictures


# ---- data, files, the command line --------------------------------------------------------------


def test_prior_and_decoder_learn_from_the_same_embeddings_which_are_made_once(
    toy, colour_pictures, colour_vision, tmp_path, monkeypatch
):
    """They are made before training, so that data workers, which end with a run, make none."""
    source: ImageSource = open_source(str(colour_pictures))
    contract = toy.stages["prior"].contract
    encoded = embed_images(source, contract.space, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(type(vision_encoder_of(colour_vision)), "directions", None)  # none is new
        again = embed_images(source, contract.space, tmp_path)
        decoder = Contract(Space(size_px=32), toy.stages["decoder"].conditions)
        for_prior = TrainingImages(source, contract, flip=(), encoded=encoded)
        for_decoder = TrainingImages(source, decoder, flip=(), embedded={"image_embedding": again})
        own = [for_prior[place] for place in range(16)]
        others = [for_decoder[place] for place in range(16)]
    mean = torch.stack([each.image for each in own]).square().mean()
    assert float(mean) == pytest.approx(1, abs=1e-3)
    for sample, other in zip(own, others, strict=True):
        assert sample.image.shape == (16, 1, 1)
        assert sample.conditions["text"]
        assert other.image.shape == (3, 32, 32)
        assert other.conditions["image_embedding"].equal(sample.image)
    true = vision_encoder_of(colour_vision).encode(others[3].image[None])
    assert own[3].image.equal(true[0])


@pytest.mark.parametrize("option", [{"flip": ("x",)}, {"crop_px": 16}, {"rotate90": True}])
def test_embeddings_of_whole_pictures_are_not_those_of_their_parts(
    toy, colour_pictures, tmp_path, option
):
    source = open_source(str(colour_pictures))
    encoded = embed_images(source, toy.stages["prior"].contract.space, tmp_path)
    decoder = Contract(Space(size_px=32), toy.stages["decoder"].conditions)
    embedded = {"image_embedding": encoded}
    with pytest.raises(DataError, match="the embeddings of images are not those of their crops"):
        TrainingImages(source, decoder, **{"flip": (), **option}, embedded=embedded)
    recipe = load_stage_recipe(
        find_recipe("emoji-64-unclip", "stages"),
        ["condition.image_embedding.encoder=colours", "condition.text=null", "data.flip=[x]"],
    )
    with pytest.raises(CascadeError, match="the embeddings of images are not those of their cro"):
        check_stage(recipe)


def test_without_a_cache_the_embedding_is_that_of_the_mirrored_part(toy, colour_vision):
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    condition = toy.stages["decoder"].contract.condition("image_embedding")
    for part in (image, image.flip(-1)):
        value = condition.input_of(Batch(images=part, seeds=(0,)), Space(size_px=8))
        assert value.equal(vision_encoder_of(colour_vision).encode(part))


def test_embeddings_of_other_images_or_another_encoder_are_refused(
    toy, colour_pictures, colour_vision, tmp_path
):
    source = open_source(str(colour_pictures))
    space = toy.stages["prior"].contract.space
    encoded = embed_images(source, space, tmp_path)
    with pytest.raises(DataError, match="no condition 'image_embedding' that takes embeddings"):
        TrainingImages(source, Contract(Space(size_px=32)), flip=(),
                       embedded={"image_embedding": encoded})  # fmt: skip
    other = Contract(replace(space, encoder="2" * 64))
    with pytest.raises(DataError, match="the images were encoded for"):
        TrainingImages(source, other, flip=(), encoded=encoded)
    with pytest.raises(DataError, match="files hold pixels, but the stage makes embeddings"):
        TrainingImages(source, Contract(space), flip=())


def test_a_saved_chain_gives_the_same_pictures(toy, tmp_path):
    toy.save_pretrained(tmp_path / "toy")
    toy.save_pretrained(tmp_path / "toy")  # over the first one
    contract = json.loads((tmp_path / "toy/stages/prior/stage.json").read_text())["contract"]
    assert contract["space"]["encoder_name"] == "colours"
    loaded = CascadePipeline.from_pretrained(tmp_path / "toy")
    loaded.set_progress_bar_config(disable=True)
    ours, theirs = (each("red", seed=1, output_type="pt").images for each in (toy, loaded))
    torch.testing.assert_close(ours, theirs)


SMALL = {
    "prior": """
space: {size_px: 1, channels: 16, kind: embeddings}
network: {kind: mlp, width: 32, depth: 1}
sampling: {threshold: none, steps: 2}
""",
    "decoder": """
space: {size_px: 16}
condition: {image_embedding: {encoder: colours}}
network: {kind: unet, channels: [8], blocks: 1, patch_size: 4}
sampling: {steps: 2}
""",
}


def test_recipes_train_a_prior_and_a_decoder_that_join(
    colour_vision, colour_pictures, tmp_path, command
):
    for name, text in SMALL.items():
        encoder = ", encoder: colours" if name == "prior" else ""
        data = f"data: {{path: {colour_pictures}, flip: []{encoder}}}"
        recipe = f"kind: stage\nname: {name}\n{text}\n{data}\n"
        (tmp_path / f"{name}.yaml").write_text(recipe)
        train = ["images=16", "batch_size=8", "sample_every_images=8", "sample_count=2"]
        options = [f"train.{each}" for each in [*train, "trackers=[]"]]
        options += [f"data.cache_dir={tmp_path / 'cache'}", "--out", tmp_path / "runs" / name]
        done = command("train", tmp_path / f"{name}.yaml", *options)
        assert done.code == 0, done.err
    log = (tmp_path / "runs" / "decoder" / "log.jsonl").read_text()
    assert 0 < json.loads(log.splitlines()[-1])["embedding_distance"] < 2
    stages = {name: load_stage(tmp_path / "runs" / name / "stage") for name in SMALL}
    pipeline = CascadePipeline.from_stages(stages)
    assert pipeline(seed=0, output_type="pt").images.shape == (1, 3, 16, 16)


def test_a_prior_of_another_width_than_its_encoder_is_one_line(colour_vision):
    recipe = load_stage_recipe(find_recipe("emoji-prior", "stages"), ["data.encoder=colours"])
    with pytest.raises(CascadeError, match="channels must be 16 for the encoder colours, got 256"):
        check_stage(recipe)


def test_the_command_varies_a_picture(toy, tmp_path, command):
    toy.save_pretrained(tmp_path / "toy")
    Image.new("RGB", (30, 20), (40, 40, 230)).save(tmp_path / "blue.png")
    options = ["-n", 2, "--seed", 1, "--device", "cpu", "-o", tmp_path / "out"]
    done = command("generate", tmp_path / "toy", "--like", tmp_path / "blue.png", *options)
    assert done.code == 0, done.err
    done = command(
        "generate", tmp_path / "toy", "red", "--keep-intermediates", "-o", tmp_path / "b"
    )
    assert done.code == 0, done.err
    assert [each.name for each in (tmp_path / "b").glob("*.prior.png")] == []  # no pictures
    with Image.open(tmp_path / "out" / "00001.png") as image:
        record = json.loads(image.text["cascade"])
        colour = torch.tensor(image.convert("RGB").getpixel((4, 4))) / 127.5 - 1
    assert (record["like"], record["seed"]) == ("blue.png", 2)
    assert named(colour.view(1, 3, 1, 1)) == ["blue"]
    missing = command("generate", tmp_path / "toy", "--like", tmp_path / "none.png", *options)
    assert missing.code != 0
    assert "none.png" in missing.err
    assert len(missing.err.strip().splitlines()) == 1

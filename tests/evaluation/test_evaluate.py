"""Evaluating pipelines: what the figures are measured on, and the errors for wrong input."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_autoencoders import IdentityAutoencoder

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.faults.grain import Grain
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.text import Text
from cascade.contract import Contract
from cascade.data.sources import open_source
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, DataError, WeightsError
from cascade.evaluation.card import write_results
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.image_set import ImageSetBuilder
from cascade.evaluation.measuring_pairs import pairs
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.report import render
from cascade.evaluation.results import Evaluation
from cascade.evaluation.set_distances import frechet_distance
from cascade.evaluation.set_figures import colour_scores
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise, resize
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.tasks.enlarging import low_res_error
from cascade.tasks.image_metrics import psnr
from cascade.tasks.table import task_of

FIELDS = {"class": ["cat", "dog"], "style": ["noto", "twemoji"]}


@pytest.fixture
def measure(extractor, tmp_path):
    def run(pipeline, data, **options) -> Evaluation:
        options = {"extractor": extractor, "cache_dir": tmp_path / "cache"} | options
        return evaluate(pipeline, data, **options)

    return run


# ---- pipelines that make pictures ---------------------------------------------------------------


def test_latents_are_no_pictures_and_a_decoder_alone_restores_the_held_out_ones(held_out, measure):
    space = Space(size_px=16)
    decoder = AutoencoderStage.of_network(IdentityAutoencoder(), space).scaled(0.1, 2.0)
    base = DiffusionStage.build(
        Contract(decoder.latent_space),
        NoiseProcess(NoiseSchedule(train_steps=50)),
        network_options={"channels": (8,), "blocks": 1},
        sampling=SamplingSettings(steps=2, threshold="none"),
    )
    pipeline = CascadePipeline.from_stages({"base": base.eval(), "decoder": decoder})
    evaluation = measure(pipeline, held_out, num_images=16)
    figures = {each.subject: each for each in evaluation.measured}
    assert "base" not in figures
    assert figures["decoder, alone"].score("FD").value == pytest.approx(0, abs=1e-3)
    assert figures["whole pipeline"].score("FD").value > 0.1
    assert figures["whole pipeline"].seconds_per_image > 0
    assert evaluation.settings["base"]["steps"] == 2
    assert evaluation.settings["decoder"] == {}  # it samples nothing
    alone = CascadePipeline.from_stages({"base": base.eval()})
    with pytest.raises(
        ContractError, match="evaluation measures pixels, but stage 'base' gives latents"
    ):
        measure(alone, held_out)


def test_latents_of_captions_are_measured_by_the_pictures_that_the_decoder_makes(
    letters, colour_pictures, measure
):
    text = Text(
        fields=("captions",), encoder=letters.name, sha256=letters.sha256,
        width=letters.width, pooled_width=letters.pooled_width, max_tokens=20,
    )  # fmt: skip
    decoder = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=16)).scaled(0, 1)
    base = DiffusionStage.build(
        Contract(decoder.latent_space, (text,)),
        NoiseProcess(NoiseSchedule(train_steps=50)),
        network="transformer",
        network_options={"width": 32, "depth": 1, "patch_size": 4, "head_channels": 16},
        sampling=SamplingSettings(steps=1, threshold="none"),
    )
    pipeline = CascadePipeline.from_stages({"base": base.eval(), "decoder": decoder})
    prompts = RealPictures(colour_pictures, name="").inputs(
        range(16), pipeline.stages.contracts, degraded=False
    )
    assert len(set(prompts.get("prompt"))) == 16
    assert all("flat" in each or "round" in each for each in prompts.get("prompt"))
    evaluation = measure(pipeline, colour_pictures, num_images=16)
    assert evaluation.whole.score("FD") is not None


def test_the_whole_pipeline_is_what_it_makes_beside_the_held_out_pictures(
    cascade, held_out, measure, extractor
):
    evaluation = measure(cascade, held_out, num_images=20, seed=7)
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    truth = pictures.read(range(16), cascade.stages["upsampler"].space)
    labels = [pictures.labels(i % 16) for i in range(20)]
    images = cascade(num_images=20, seed=7, labels=labels, output_type="pt").images
    sets = [extractor.features(quantise(each)).double() for each in (images, truth)]
    score = evaluation.whole.score("FD")
    assert score.value == pytest.approx(frechet_distance(*sets), rel=1e-3)
    assert (score.n, score.n_reference) == (20, 16)
    assert score.low < score.value < score.high
    assert score.basis() == "n = 20, against 16 held-out images, Pooled, area to 4 px"
    assert evaluation.whole.seconds_per_image > 0


def test_a_stage_alone_gets_held_out_pictures_downscaled_as_its_contract_says(
    cascade, held_out, measure, extractor
):
    evaluation = measure(cascade, held_out, num_images=16)
    assert [each.subject for each in evaluation.measured] == [
        "base",
        "upsampler, alone",
        "real, half against half",
        "whole pipeline",
    ]
    assert [each.size_px for each in evaluation.measured] == [16, 32, 32, 32]
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    contract = cascade.stages["upsampler"].contract
    truth = pictures.read(range(16), contract.space)
    inputs = pictures.inputs(range(16), [contract], degraded=False).get("image")
    torch.testing.assert_close(inputs, quantise(resize(truth, (16, 16), "bicubic")))
    labels = [pictures.labels(i) for i in range(16)]
    images = cascade(image=inputs, seed=0, labels=labels, output_type="pt").images
    expected = frechet_distance(
        *(extractor.features(quantise(x)).double() for x in (images, truth))
    )
    assert evaluation.measured[1].score("FD").value == pytest.approx(expected, rel=1e-3)


def test_a_stage_between_is_measured_alone_and_in_the_chain(
    base_stage, upsampler, relabelled, held_out, measure
):
    # Two upsamplers of the same kind, the first from 8 px, so that a stage stands in the middle.
    stages = {
        "base": _resized(base_stage, 8),
        "middle": _resized(upsampler, 16, low_res_px=8),
        "upsampler": upsampler,
    }
    stages = {name: relabelled(stage, FIELDS) for name, stage in stages.items()}
    evaluation = measure(CascadePipeline.from_stages(stages), held_out, num_images=6)
    assert [(each.subject, each.size_px) for each in evaluation.measured] == [
        ("base", 8),
        ("middle, alone", 16),
        ("up to middle", 16),
        ("upsampler, alone", 32),
        ("real, half against half", 32),
        ("whole pipeline", 32),
    ]
    seconds = [each.seconds_per_image for each in evaluation.measured]
    assert seconds[0] < seconds[2] < seconds[5]


def _resized(stage, size_px, *, low_res_px=None):
    """A stage with the same weights for images of another size."""
    conditions = [
        replace(each, size_px=low_res_px) if isinstance(each, LowResolution) else each
        for each in stage.conditions
    ]
    contract = Contract(Space(size_px=size_px), tuple(conditions))
    return DiffusionStage(stage.network, stage.process, contract, sampling=stage.sampling)


def test_a_copy_is_found(cascade, held_out, measure, tmp_path):
    images = cascade(num_images=6, seed=0, labels=_labels(cascade, held_out, 6)).images
    for number, image in enumerate(images):
        (tmp_path / "train").mkdir(exist_ok=True)
        image.save(tmp_path / "train" / f"{number}.png")
    evaluation = measure(cascade, held_out, train=tmp_path / "train", num_images=6, seed=0)
    assert evaluation.whole.score("distance to nearest training image").value == pytest.approx(
        0, abs=1e-5
    )
    assert evaluation.whole.score("the same, share of held-out images'").value < 1e-4
    assert "Nearest training images" in [sheet.heading for sheet in evaluation.sheets]


def _labels(pipeline, folder, count):
    pictures = RealPictures(folder, name="", vocabulary=pipeline.labels)
    return [pictures.labels(i) for i in range(count)]


def test_held_out_pictures_that_were_trained_on_are_counted(cascade, held_out, measure):
    evaluation = measure(cascade, held_out, train=held_out, num_images=6)
    assert any("16 of 16 held-out images are training images too" in n for n in evaluation.notes)
    assert not any("too;" in note for note in measure(cascade, held_out, num_images=6).notes)


def test_few_images_are_warned_of(cascade, held_out, measure):
    notes = " ".join(measure(cascade, held_out, num_images=6).notes)
    assert "there are only 6 images for 48 features" in notes


def test_what_was_seen_of_real_pictures_is_kept_until_one_of_them_changes(
    base_stage, relabelled, held_out, measure, extractor
):
    pipeline = CascadePipeline.from_stages({"base": relabelled(base_stage, FIELDS)})
    first = measure(pipeline, held_out, num_images=6)
    assert extractor.looked_at == 16 + 6
    again = measure(pipeline, held_out, num_images=6)
    assert extractor.looked_at == 16 + 6 + 6
    assert again.whole.scores == first.whole.scores
    changed = held_out / "cat" / "0.png"
    Image.new("RGB", (40, 36), "red").save(changed)
    measure(pipeline, held_out, num_images=6)
    assert extractor.looked_at == 16 + 6 + 6 + 16 + 6


def test_colours_drift_by_as_much_as_they_were_shifted(held_out, measure, tmp_path, extractor):
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    shifted = images.clone()
    shifted[:, 2] += 10 / 127.5
    sets = []
    for each in (shifted, images):
        builder = ImageSetBuilder(extractor, torch.device("cpu"))
        builder.add(each[:3])
        builder.add(each[3:])
        sets.append(builder.finish())
    mean, spread, *_ = colour_scores(*sets, "others")
    assert mean.value == pytest.approx(10, abs=0.05)
    assert spread.value == pytest.approx(0, abs=0.05)


# ---- pipelines that take pictures ---------------------------------------------------------------


def test_enlarging_is_measured_as_a_user_gets_it(
    upsampler, held_out, measure, lite_of_random_weights
):
    pipeline = CascadePipeline.from_stages({"upsampler": upsampler})
    evaluation = measure(pipeline, held_out, num_images=3, seed=5)
    assert evaluation.task == "upscale"
    assert [each.subject for each in evaluation.measured] == ["bicubic", "whole pipeline"]
    truth = RealPictures(held_out, name="").read(range(3), upsampler.space)
    inputs = quantise(resize(truth, (16, 16), "bicubic"))
    images = [upscale_image([upsampler], g, Upscaling(seed=5 + i)) for i, g in enumerate(inputs)]
    expected = float(psnr(torch.stack(images), truth).mean())
    score = evaluation.whole.score("PSNR, dB")
    assert score.value == pytest.approx(expected, rel=1e-4)
    assert score.basis() == "n = 3, against 3 originals"
    assert score.low < score.value < score.high
    simple = evaluation.measured[0].score("PSNR, dB").value
    assert simple == pytest.approx(float(psnr(resize(inputs, (32, 32), "bicubic"), truth).mean()))
    error = low_res_error(torch.stack(images), inputs).mean()
    assert evaluation.whole.score("LR-consistency").value == pytest.approx(float(error), rel=1e-4)
    assert evaluation.whole.score("PD-EffLite0 between two seeds").value > 0
    assert evaluation.measured[0].score("PD-EffLite0 between two seeds") is None


def test_a_stage_that_restores_gets_degraded_pictures(
    upsampler, held_out, measure, lite_of_random_weights
):
    damage = Degradation(probability=1, noise=Grain(std=(20.0, 30.0)))
    conditions = (LowResolution(size_px=16, augmentation_range=(0, 1), degradation=damage),)
    contract = Contract(upsampler.space, (*upsampler.conditions[:1], *conditions))
    restoring = DiffusionStage(
        upsampler.network, upsampler.process, contract, sampling=upsampler.sampling
    )
    evaluation = measure(
        CascadePipeline.from_stages({"upsampler": restoring}), held_out, num_images=3
    )
    simple = evaluation.measured[0]
    assert simple.input == "held-out images, 16 px, degraded"
    truth = RealPictures(held_out, name="").read(range(3), upsampler.space)
    small = quantise(resize(truth, (16, 16), "bicubic"))
    inputs = quantise(damage.degrade(truth, small, "bicubic", range(3)).images)
    expected, clean = (psnr(resize(each, (32, 32), "bicubic"), truth) for each in (inputs, small))
    assert simple.score("PSNR, dB").value == pytest.approx(float(expected.mean()))
    assert float(expected.mean()) < float(clean.mean()) - 1
    assert evaluation.whole.score("LR-consistency") is None  # degraded inputs


def test_upsamplers_are_measured_alone_at_their_own_sizes(
    upsampler, held_out, measure, lite_of_random_weights
):
    first = _resized(upsampler, 16, low_res_px=8)
    pipeline = CascadePipeline.from_stages({"first": first, "second": upsampler})
    evaluation = measure(pipeline, held_out, num_images=2)
    assert [(each.subject, each.size_px, each.input) for each in evaluation.measured] == [
        ("bicubic", 32, "held-out images, 8 px"),
        ("first, alone", 16, "held-out images, 8 px"),
        ("second, alone", 32, "held-out images, 16 px"),
        ("whole pipeline", 32, "held-out images, 8 px"),
    ]
    (sheet,) = evaluation.sheets
    assert sheet.caption == "input, bicubic, first, alone, second, alone, whole pipeline, original"
    assert sheet.image.size == (6 * 34 - 2, 2 * 34 - 2)


def test_colouring_keeps_the_luminance_and_is_measured(
    colouriser, held_out, measure, lite_of_random_weights
):
    pipeline = CascadePipeline.from_stages({"colouriser": colouriser})
    evaluation = measure(pipeline, held_out, num_images=2)
    assert evaluation.task == "colourise"
    grey, whole = evaluation.measured
    assert grey.score("colourfulness").value == pytest.approx(0, abs=1e-4)
    assert whole.score("luminance error, 8-bit").value < 0.6
    assert whole.score("colourfulness").value > 1


def test_one_picture_has_no_distances_of_sets(upsampler, held_out, measure, lite_of_random_weights):
    pipeline = CascadePipeline.from_stages({"upsampler": upsampler})
    evaluation = measure(pipeline, held_out, num_images=1)
    assert evaluation.whole.score("FD") is None
    assert evaluation.whole.score("PSNR").low is None
    assert any("need at least 2 images" in note for note in evaluation.notes)


# ---- what is written ----------------------------------------------------------------------------


def test_json_is_read_back_as_it_was(cascade, held_out, measure, tmp_path):
    evaluation = measure(cascade, held_out, num_images=6, name="mine")
    evaluation.save(tmp_path / "scores.json")
    values = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    again = Evaluation.from_dict(values)
    assert again == evaluation
    assert again.pipeline == "mine"


def test_keys_of_urls_are_not_in_what_is_written(
    base_stage, relabelled, held_out, measure, tmp_path, monkeypatch
):
    url = "https://me:hunter2@host/held-out.tar?key=hunter2"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["cascade", "evaluate", "mine", "--data", url])
    copy_of_shard = tmp_path / "cascade" / "shards"
    copy_of_shard.mkdir(parents=True)
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    with tarfile.open(copy_of_shard / f"{name}.tar", "w") as tar:
        tar.add(held_out, arcname="held-out")
    pipeline = CascadePipeline.from_stages({"base": relabelled(base_stage, FIELDS)})
    evaluation = measure(pipeline, url, num_images=6)
    assert evaluation.data == "https://host/held-out.tar"
    write_results(evaluation, tmp_path)
    card = (tmp_path / "README.md").read_text()
    for text in (json.dumps(evaluation.to_dict()), render(evaluation), card):
        assert "held-out.tar" in text
        assert "hunter2" not in text


def test_table_and_report_hold_every_figure_and_the_report_loads_nothing(
    cascade, held_out, measure
):
    evaluation = measure(cascade, held_out, train=held_out, num_images=6, name="<mine>")
    text, html = "\n".join(evaluation.lines()), render(evaluation)
    for measured in evaluation.measured:
        for score in measured.scores:
            assert score.text() in text
            assert score.text() in html
            assert score.basis() in text
    assert "<mine>" not in html
    assert "http" not in html.replace("http-equiv", "")
    for heading in ("Samples", "Nearest training images", "Settings of the stages"):
        assert heading in html


# ---- bad input ----------------------------------------------------------------------------------


def test_held_out_pictures_that_are_all_the_same_have_figures_too(cascade, held_out, measure):
    first, *others = sorted(held_out.rglob("*.png"))
    for file in others:
        file.write_bytes(first.read_bytes())
    evaluation = measure(cascade, held_out, num_images=6)
    assert evaluation.whole.score("FD").value > 0
    assert evaluation.whole.score("diversity") is None


def test_results_that_equal_their_originals_do_not_make_the_mean_infinite(
    upsampler, measure, lite_of_random_weights, tmp_path
):
    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number,) * 3).save(tmp_path / f"{number}.png")
    evaluation = measure(CascadePipeline.from_stages({"up": upsampler}), tmp_path)
    assert evaluation.measured[0].score("PSNR, dB").value == 100
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_a_stage_whose_weights_are_spoilt_is_one_line(
    cascade, upsampler, held_out, measure, lite_of_random_weights
):
    torch.nn.init.constant_(next(upsampler.network.parameters()), float("nan"))
    with pytest.raises(WeightsError, match="not finite, so its weights are unusable"):
        measure(cascade, held_out, num_images=6)
    with pytest.raises(WeightsError, match="not finite, so its weights are unusable"):
        measure(CascadePipeline.from_stages({"up": upsampler}), held_out, num_images=2)


def test_too_few_pictures_or_samples_are_one_line(cascade, held_out, measure):
    with pytest.raises(DataError, match=r"at least 6 held-out images .* got 16 and 5"):
        measure(cascade, held_out, num_images=5)
    for file in sorted(held_out.rglob("*.png"))[5:]:
        file.unlink()
    with pytest.raises(DataError, match="got 5 and 9"):
        measure(cascade, held_out, num_images=9)


def test_no_images_are_one_line(cascade, upsampler, held_out, measure):
    for pipeline in (cascade, CascadePipeline.from_stages({"up": upsampler})):
        with pytest.raises(ContractError, match="num_images must be at least 1, got 0"):
            measure(pipeline, held_out, num_images=0)


def test_no_pictures_are_one_line(cascade, measure, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        measure(cascade, tmp_path / "empty")
    with pytest.raises(DataError, match="the folder does not exist"):
        measure(cascade, tmp_path / "nothing")


def test_a_corrupt_or_small_picture_is_named(cascade, held_out, measure):
    Image.new("RGB", (40, 20)).save(held_out / "cat" / "0.png")
    with pytest.raises(DataError, match=r"0\.png: 40x20 px is smaller than the stage's 32 px"):
        measure(cascade, held_out)
    (held_out / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"0\.png: not a readable image"):
        measure(cascade, held_out)


def test_pictures_of_classes_that_the_pipeline_does_not_know_are_left_out(
    cascade, held_out, measure
):
    Image.new("RGB", (40, 40), "green").save(held_out / "green.png")
    (held_out / "bird").mkdir()
    Image.new("RGB", (40, 40), "red").save(held_out / "bird" / "0.png")
    evaluation = measure(cascade, held_out, num_images=6)
    assert evaluation.whole.score("FD").n_reference == 17
    assert any("1 held-out images are of classes" in note for note in evaluation.notes)


def test_pictures_of_other_classes_alone_are_one_line(cascade, held_out, measure):
    (held_out / "cat").rename(held_out / "bird")
    (held_out / "dog").rename(held_out / "fish")
    with pytest.raises(DataError, match="no held-out images of the pipeline's classes: unknown"):
        measure(cascade, held_out)


def test_a_damaged_picture_is_found_before_anything_is_restored(
    upsampler, held_out, measure, lite_of_random_weights, record
):
    calls = record(upsampler)
    pipeline = CascadePipeline.from_stages({"up": upsampler})
    with pytest.raises(DataError, match="17 images were requested, but there are 16 held-out"):
        measure(pipeline, held_out, num_images=17)
    (held_out / "cat" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"0\.png: not a readable image"):
        measure(pipeline, held_out)
    assert calls == []


def test_options_for_another_kind_of_pipeline_are_refused(
    cascade, upsampler, held_out, measure, tmp_path
):
    with pytest.raises(ContractError, match="leave lpips and lpips_path out"):
        measure(cascade, held_out, lpips_path=tmp_path / "alexnet.pth")
    with pytest.raises(ContractError, match="leave lpips and lpips_path out"):
        measure(cascade, held_out, lpips=True)
    with pytest.raises(ContractError, match="leave train out"):
        measure(CascadePipeline.from_stages({"up": upsampler}), held_out, train=held_out)


def test_inpainters_are_measured_as_edit_runs_them(inpainter, upsampler, held_out):
    """Every stage keeps the known pixels at its own size, and the hole is that of the result."""
    stages = [inpainter, upsampler]
    contracts = [stage.contract for stage in stages]
    pictures = RealPictures(held_out, name="")
    inputs, truth = pairs(pictures, [3], contracts)
    image = inputs.get("image")
    assert image.shape == (1, 4, 32, 32)
    known = image[0, 3] > 0
    assert 0 < known.sum() < known.numel()
    result = task_of(contracts).run(stages, inputs, 0)
    assert result[:, known].equal(truth[0][:, known])
    assert not result[:, ~known].allclose(truth[0][:, ~known], atol=0.05)


def test_latents_are_not_measured(held_out, measure):
    stage = DiffusionStage.build(
        Contract(Space(size_px=16, channels=5, kind="latents")),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1},
    )
    with pytest.raises(ContractError, match="stage 'bands' gives latents"):
        measure(CascadePipeline.from_stages({"bands": stage}), held_out)


def test_stages_may_be_rectangular(base_stage, relabelled, held_out, measure):
    wide = _resized(relabelled(base_stage, FIELDS), (16, 32))
    evaluation = measure(CascadePipeline.from_stages({"wide": wide}), held_out, num_images=6)
    assert evaluation.whole.size_px == 32
    assert evaluation.sheets[0].image.size == (6 * 34 - 2, 16)


def test_a_source_and_a_folder_give_the_same(base_stage, relabelled, held_out, measure):
    pipeline = CascadePipeline.from_stages({"base": relabelled(base_stage, FIELDS)})
    folder, source = (
        measure(pipeline, data, num_images=6) for data in (held_out, open_source(str(held_out)))
    )
    assert folder.whole.scores == source.whole.scores

"""A sweep: what it makes, what it keeps, what it chooses, what it writes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, DataError
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.set_distances import frechet_estimate, kernel_estimate
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise
from cascade.space import Space
from cascade.sweeping.outcomes import choose, margin_of
from cascade.sweeping.paired_runner import PairedRunner
from cascade.sweeping.report import render, write_strips
from cascade.sweeping.results import Sweep
from cascade.sweeping.set_runner import SetRunner
from cascade.sweeping.sweep import sweep
from cascade.tasks.table import task_of


@pytest.fixture
def run(extractor, tmp_path):
    def run(pipeline, data, *axes, **options) -> Sweep:
        usual = {"extractor": extractor, "cache_dir": tmp_path / "cache", "out": tmp_path / "out"}
        return sweep(pipeline, data, axes, **usual | options)

    return run


@pytest.fixture
def runs(monkeypatch) -> list[list[int]]:
    """The places of the images that are made, a list for each run of the chain."""
    places_of_runs = []
    original = SetRunner.run

    def run(self, settings, places):
        places_of_runs.append(list(places))
        return original(self, settings, places)

    monkeypatch.setattr(SetRunner, "run", run)
    return places_of_runs


def values_of(result: Sweep, axis: str) -> list:
    return [each.candidate.values[axis] for each in result.outcomes]


def scores_of(result: Sweep) -> list[list[dict]]:
    return [[asdict(score) for score in each.scores] for each in result.outcomes]


# ---- from noise ---------------------------------------------------------------------------------


def test_figures_are_those_of_the_whole_pipeline_with_these_settings(
    cascade, held_out, run, extractor
):
    result = run(
        cascade, held_out, "base.steps=2", "upsampler.augmentation_level=0,0.9", num_images=9
    )
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    truth = pictures.read(range(16), cascade.stages.last.space)
    labels = [pictures.labels(i % 16) for i in range(9)]
    assert len(result.outcomes) == 3
    for each in result.outcomes:
        values = each.candidate.values
        output = cascade(
            num_images=9,
            seed=0,
            labels=labels,
            steps={"base": values["base.steps"]},
            augmentation_level={"upsampler": values["upsampler.augmentation_level"]},
            output_type="pt",
        )
        sets = [extractor.features(quantise(x)).double() for x in (output.images, truth)]
        kid, fd = each.scores
        assert kid.value == pytest.approx(kernel_estimate(*sets).value, rel=1e-3, abs=1e-3)
        assert fd.value == pytest.approx(frechet_estimate(*sets).value, rel=1e-3)
        assert kid.basis() == "n = 9, against 16 held-out images, Pooled, area to 4 px"


def test_labels_that_no_held_out_picture_has_are_those_that_the_chain_draws(
    cascade, held_out, run, extractor
):
    """The style is known of no picture: all stages must see the same drawn one."""
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    settings = {name: stage.sampling for name, stage in cascade.stages.items()}
    images = SetRunner(cascade, pictures, extractor, seed=3).run(settings, range(6))
    labels = [pictures.labels(place) for place in range(6)]
    assert all("style" not in each for each in labels)
    expected = cascade(num_images=6, seed=3, labels=labels, output_type="pt").images
    assert torch.allclose(images.features, extractor.features(quantise(expected)), atol=1e-4)


def test_first_stages_run_once_for_all_settings_of_later_ones(cascade, held_out, run):
    calls = []
    cascade.stages["base"].network.register_forward_hook(lambda *call: calls.append(call))
    run(cascade, held_out, "upsampler.steps=2,3,4,5", num_images=16)
    assert len(calls) == cascade.stages["base"].sampling.steps
    run(cascade, held_out, "base.steps=1,2", "upsampler.steps=2,3", num_images=16, seed=50)
    assert len(calls) == 4 + 4 + 1 + 2  # as it is, then each once


def test_the_pipeline_s_own_settings_are_as_they_were(cascade, held_out, run):
    before = {name: stage.sampling.to_dict() for name, stage in cascade.stages.items()}
    run(cascade, held_out, "steps=1,2", num_images=6)
    assert {name: stage.sampling.to_dict() for name, stage in cascade.stages.items()} == before


def test_what_was_measured_is_not_made_again_and_more_images_go_on(cascade, held_out, run, runs):
    first = run(cascade, held_out, "base.steps=1,2", num_images=18)
    runs.clear()
    again = run(cascade, held_out, "base.steps=1,2", num_images=18)
    assert runs == []
    assert scores_of(first) == scores_of(again)
    run(cascade, held_out, "base.steps=2,3", num_images=20)
    new, old = list(range(16)), [18, 19]
    assert sorted(runs) == sorted([old, old, new, [16, 17, 18, 19]])


def test_an_interrupted_sweep_ends_as_one_without_a_gap(
    cascade, held_out, run, monkeypatch, tmp_path
):
    whole = run(cascade, held_out, "base.steps=1,2", num_images=20, out=tmp_path / "whole")
    original, calls = SetRunner.run, []

    def interrupted(self, settings, places):
        calls.append(places)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, settings, places)

    monkeypatch.setattr(SetRunner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(cascade, held_out, "base.steps=1,2", num_images=20)
    resumed = run(cascade, held_out, "base.steps=1,2", num_images=20)
    for a, b in zip(whole.outcomes, resumed.outcomes, strict=True):
        assert a.candidate == b.candidate
        for x, y in zip(a.scores, b.scores, strict=True):
            assert x.value == pytest.approx(y.value, rel=1e-5)


def test_what_was_written_by_halves_is_made_anew(cascade, held_out, run, tmp_path):
    first = run(cascade, held_out, "base.steps=1,2", num_images=6)
    for file in (tmp_path / "out" / "images").iterdir():
        file.write_bytes(file.read_bytes()[:-10])
    again = run(cascade, held_out, "base.steps=1,2", num_images=6)
    assert scores_of(first) == scores_of(again)


def test_of_equal_settings_the_current_ones_are_the_best(cascade, held_out, run, resample):
    resample(cascade, "base", threshold="dynamic", percentile=0.01)
    result = run(cascade, held_out, "base.percentile=0.02,0.01", num_images=6)  # both clip at 1
    assert result.outcomes[0].scores == result.outcomes[1].scores
    assert result.best == result.current == 0


def test_other_weights_are_not_mistaken_for_these(cascade, held_out, run):
    first = run(cascade, held_out, "base.steps=2", num_images=6)
    with torch.no_grad():
        next(iter(cascade.stages["upsampler"].parameters())).add_(1)
    second = run(cascade, held_out, "base.steps=2", num_images=6)
    assert first.outcomes[0].scores[1].value != second.outcomes[0].scores[1].value


def test_other_contracts_and_labels_are_not_mistaken_for_these(cascade, held_out, run, runs):
    run(cascade, held_out, "base.steps=4", num_images=6)
    assert len(runs) == 1
    (held_out / "dog").rename(held_out / "dogs")
    (held_out / "cat").rename(held_out / "dog")
    (held_out / "dogs").rename(held_out / "cat")
    run(cascade, held_out, "base.steps=4", num_images=6)
    assert len(runs) == 2
    stage = cascade.stages["upsampler"]
    labels, image = stage.conditions
    contract = Contract(stage.space, (labels, replace(image, quantised=False)))
    changed = DiffusionStage(stage.network, stage.process, contract, sampling=stage.sampling)
    cascade.replace_stage("upsampler", changed)
    run(cascade, held_out, "base.steps=4", num_images=6)
    assert len(runs) == 3


def test_settings_whose_pictures_are_no_numbers_are_left_out_and_named(cascade, held_out, run):
    axes = ("base.guidance=1e38,1", "base.threshold=none")
    result = run(cascade, held_out, *axes, num_images=6)
    assert values_of(result, "base.guidance") == [1, 1]
    (note,) = [note for note in result.notes if "left out" in note]
    assert note == (
        "base.guidance 1e+38, base.threshold none: left out, since the images of stage 'base' "
        "have values that are not finite."
    )
    assert note in render(result).replace("&#x27;", "'")
    with torch.no_grad():
        next(iter(cascade.stages["upsampler"].parameters())).fill_(float("nan"))
    with pytest.raises(
        ContractError, match=r"current settings, .* have values that are not finite"
    ):
        run(cascade, held_out, "base.steps=2", num_images=6)


def test_pictures_of_other_classes_are_counted(cascade, held_out, run):
    (held_out / "cat").rename(held_out / "horse")
    result = run(cascade, held_out, "base.steps=4", num_images=6)
    assert "8 held-out images are of classes that the pipeline does not know" in result.notes[0]


def test_without_axes_one_setting_is_changed_at_a_time(cascade, held_out, run):
    result = run(cascade, held_out, num_images=6)
    own = result.outcomes[result.current].candidate.values
    changed = [
        [
            axis
            for axis, value in each.candidate.values.items()
            if value not in (own[axis], None)  # another sampler may not have the option
        ]
        for each in result.outcomes
    ]
    assert sorted(map(len, changed)) == [0] + [1] * (len(changed) - 1)
    steps = [
        each.first_scores[0].value
        for each, axes in zip(result.outcomes, changed, strict=True)
        if axes in ([], ["base.steps"])
    ]
    chart = next(c for c in render(result).split("<figure")[1:] if ">base.steps<" in c)
    low, high = min(steps), max(steps)
    drawn = [float(p.split(",")[1]) for p in chart.split('points="')[1].split('"')[0].split()]
    assert len(drawn) == len(steps) == 3
    heights = sorted(round((high - y) / (high - low), 2) for y in steps)
    places = sorted(
        round((y - min(drawn)) / (max(drawn) - min(drawn)), 2) for y in drawn
    )  # pixels are counted from the top
    assert places == pytest.approx(heights, abs=0.02)


def test_an_interval_that_is_lifted_is_a_change(cascade, held_out, run, resample):
    resample(cascade, "base", guidance_interval=(0.3, 3.0))
    axes = ["base.guidance=1,2", "base.guidance_interval=none,[0.3,3]"]
    result = run(cascade, held_out, *axes, num_images=6)
    assert "Each point: the best of all settings that have this value" in render(result)


def test_for_speed_few_steps_are_tried_and_the_number_of_settings_is_printed(
    refiner, held_out, run, lite_of_random_weights
):
    pytest.importorskip("torchmetrics")
    pipeline = CascadePipeline.from_stages({"up": refiner})
    result = run(pipeline, held_out, num_images=2, by="PSNR", prefer="speed")
    pairs = {(steps, t) for steps in (1, 2) for t in (0.4, 0.6, 0.8, 1.0)}
    assert pairs == {
        (each.candidate.values["up.steps"], each.candidate.values["up.temperature"])
        for each in result.outcomes
    }
    assert f"tried: {len(result.outcomes)} settings on 2 images" in result.lines()
    assert len(result.outcomes) == len(pairs) + 2  # two other samplers


def test_halving_keeps_the_best_third(cascade, held_out, run):
    steps = ",".join(str(number) for number in range(1, 12))
    result = run(cascade, held_out, f"base.steps={steps}", budget_images=250, num_images=90)
    assert [r.candidates for r in result.rounds] == [11, 4, 2]
    counts = [each.scores[0].n for each in result.outcomes]
    assert counts == sorted(counts, reverse=True)
    assert [counts.count(r.images) for r in result.rounds] == [7, 2, 2]
    ranked = sorted(result.outcomes, key=lambda each: each.first_scores[0].value)
    second_round = {each.candidate.text() for each in result.outcomes[:4]}
    assert {each.candidate.text() for each in ranked[:4]} == second_round


# ---- from pictures ------------------------------------------------------------------------------


def test_higher_figures_of_a_single_band_are_better(run, tmp_path, lite_of_random_weights):
    torch.manual_seed(0)
    space = Space(size_px=16, channels=2, range=((0, 100), (0, 9)))
    stage = DiffusionStage.build(
        Contract(space, (LowResolution(size_px=8),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1},
    ).eval()
    draw = np.random.default_rng(0)
    (tmp_path / "tiles").mkdir()
    for number in range(4):
        values = draw.random((2, 16, 16), np.float32) * np.float32([[[100]], [[9]]])
        np.save(tmp_path / "tiles" / f"{number}.npy", values)
    pipeline = CascadePipeline.from_stages({"up": stage})
    result = run(pipeline, tmp_path / "tiles", "steps=1,2", num_images=2, by="PSNR")
    better = {score.name: score.better for score in result.outcomes[0].scores}
    for band in (1, 2):
        assert better[f"PSNR, dB, band {band}"] == better[f"SSIM, band {band}"] == "higher"
        assert better[f"LR-consistency, band {band}, % of its range"] == "lower"


def test_restored_pictures_are_measured_as_an_evaluation_does(
    upsampler, held_out, run, extractor, tmp_path, lite_of_random_weights, unlabelled
):
    pytest.importorskip("torchmetrics")
    pipeline = CascadePipeline.from_stages({"up": unlabelled(upsampler)})
    result = run(pipeline, held_out, "steps=2,3", num_images=5, by="psnr")
    measured = evaluate(
        pipeline, held_out, num_images=5, extractor=extractor, cache_dir=tmp_path / "cache"
    ).whole
    own = result.outcomes[result.current]
    for name in ("PSNR", "SSIM", "PD", "LR-consistency", "FD", "KID"):
        ours = next(s for s in own.scores if s.name.startswith(name))
        theirs = measured.score(name)
        assert ours.name == theirs.name
        assert ours.value == pytest.approx(theirs.value, rel=1e-4)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-3)
    psnr = result.outcomes[0].scores[2]
    margin = (psnr.high - psnr.low) / 2
    assert margin > 0
    assert margin_of(psnr, None) == (margin, "half of its interval")
    psnr = [each.scores[2].value for each in result.outcomes]
    assert psnr == sorted(psnr, reverse=True)
    again = run(pipeline, held_out, "steps=2,3,5", num_images=5, by="psnr")  # three are kept
    names = [[score.name for score in each.scores] for each in again.outcomes]
    assert names == [[score.name for score in own.scores]] * 4


def test_other_inputs_of_pairs_are_not_mistaken_for_these(
    upsampler, held_out, run, tmp_path, lite_of_random_weights, unlabelled
):
    pytest.importorskip("torchmetrics")
    pipeline = CascadePipeline.from_stages({"up": unlabelled(upsampler, paired=True)})
    inputs = {name: tmp_path / name for name in ("small", "red")}
    for file in held_out.rglob("*.png"):
        for folder in inputs.values():
            (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        name = f"{file.parent.name}/{file.name}"
        Image.open(file).resize((20, 18)).save(inputs["small"] / name)
        Image.new("RGB", (20, 18), "red").save(inputs["red"] / name)

    def swept(name: str, out: str) -> list[list[dict]]:
        folder = str(inputs[name])
        options = {"by": "psnr", "num_images": 4, "pairs": folder, "out": tmp_path / out}
        return scores_of(run(pipeline, held_out, "steps=2", **options))

    first = swept("small", "out")
    second = swept("red", "out")
    assert second != first
    assert second == swept("red", "elsewhere")
    assert swept("small", "out") == first


def test_colouring_says_how_colourful_it_is(
    colouriser, held_out, run, lite_of_random_weights, unlabelled
):
    pytest.importorskip("torchmetrics")
    pipeline = CascadePipeline.from_stages({"colours": unlabelled(colouriser)})
    result = run(pipeline, held_out, "steps=2,3", num_images=4, by="colourfulness")
    shares = [each.scores[-1].value for each in result.outcomes]
    assert result.outcomes[0].scores[-1].name == "colourfulness, share of real"
    assert [abs(s - 1) for s in shares] == sorted(abs(s - 1) for s in shares)


# ---- options of samplers ------------------------------------------------------------------------


def test_an_option_of_a_sampler_is_swept_and_changes_the_images(cascade, held_out, run, extractor):
    result = run(cascade, held_out, "base.sampler=ddim,ddpm", "base.eta=0,0.7", num_images=6)
    assert sorted(each.candidate.text() for each in result.outcomes) == [
        "base.sampler ddim, base.eta 0",
        "base.sampler ddim, base.eta 0.7",
        "base.sampler ddpm, base.eta –",
    ]
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    labels = [pictures.labels(place) for place in range(6)]
    truth = extractor.features(pictures.read(range(16), cascade.stages.last.space)).double()
    outcome = next(o for o in result.outcomes if o.candidate.values["base.eta"] == 0.7)
    images = cascade(
        num_images=6, seed=0, labels=labels, eta={"base": 0.7}, output_type="pt"
    ).images
    features = extractor.features(quantise(images)).double()
    expected = kernel_estimate(features, truth).value
    assert outcome.scores[0].value == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert len({each.scores[0].value for each in result.outcomes}) == 3
    assert ">base.eta<" in render(result)


# ---- choosing and writing -----------------------------------------------------------------------


def test_speed_takes_the_fastest_of_those_that_are_as_good(cascade, held_out, run):
    result = run(cascade, held_out, "base.steps=1,2,3,8", num_images=8)
    place = choose(result.outcomes, "KID", "speed")
    best, chosen = result.outcomes[0].scores[0], result.outcomes[place]
    limit = best.value + (best.high - best.low) / 2
    near = [each for each in result.outcomes if each.scores[0].value <= limit]
    assert chosen.seconds_per_image == min(each.seconds_per_image for each in near)
    assert choose(result.outcomes, "KID", "quality") == 0


def test_speed_takes_the_fastest_within_a_tolerance(cascade, held_out, run):
    result = run(cascade, held_out, "base.steps=1,2,3", num_images=6)
    values = [10.0, 10.4, 11.0, 12.0]
    outcomes = [
        replace(
            each,
            scores=(replace(each.scores[0], value=value, low=5.0, high=10.0),),
            seconds_per_image=1 / value,
        )
        for each, value in zip(result.outcomes, values, strict=True)
    ]
    places = [choose(outcomes, "KID", "speed", t) for t in (0, 0.05, 0.1, 0.19, 0.2, None)]
    assert places == [0, 1, 2, 2, 3, 3]
    near_zero = [
        replace(each, scores=(replace(each.scores[0], value=value, low=-3.0, high=1.0),))
        for each, value in zip(outcomes, (-1.0, 0.5, 0.9, 1.1), strict=True)
    ]
    assert [choose(near_zero, "KID", "speed", t) for t in (0.05, None)] == [2, 2]  # up to -1 + 2
    below_zero = [
        replace(each, scores=(replace(each.scores[0], value=value, low=-12.0, high=-8.0),))
        for each, value in zip(outcomes, (-10.0, -9.6, -9.0, -8.0), strict=True)
    ]
    assert choose(below_zero, "KID", "speed", 0.05) == 1  # up to -10 + 0.5
    fast = run(cascade, held_out, "base.steps=1,2,3", num_images=6, prefer="speed", tolerance=0.25)
    assert fast.to_dict()["tolerance"] == 0.25
    for tolerance, few, margin in (
        (0.25, outcomes, "25 %"),
        (None, outcomes, "half of its interval"),
        (0.25, near_zero, "half of its interval, because it includes zero"),
    ):
        shown = replace(fast, tolerance=tolerance, outcomes=few, best=0, current=0)
        line = f"best by KID and speed within {margin}: {few[0].candidate.text()}"
        assert line in shown.lines()


def test_table_report_and_json_say_the_same(cascade, held_out, run, tmp_path):
    result = run(cascade, held_out, "base.steps=1,2", "sampler=ddim,ddpm", num_images=6)
    head, rows = result.table()
    assert len(rows) == len(result.outcomes) == 5
    assert head[1:4] == ["base.steps", "sampler", "n"]
    html = render(result)
    assert 'src="http' not in html
    assert all(cell in html for row in rows for cell in row if cell)
    assert html.count("data:image/png") == 5
    result.save(tmp_path / "sweep.json")
    values = json.loads((tmp_path / "sweep.json").read_text())
    assert values["outcomes"][values["best"]]["scores"][0]["value"] == min(
        each["scores"][0]["value"] for each in values["outcomes"]
    )
    write_strips(result, tmp_path / "strips.png")
    assert Image.open(tmp_path / "strips.png").size == (6 * 34 - 2, 5 * 34 - 2)


# ---- wrong input --------------------------------------------------------------------------------


def test_wrong_input_is_an_error_before_anything_is_made(cascade, held_out, run, upsampler, record):
    calls = record(cascade.stages["base"])
    with pytest.raises(ContractError, match="no figure 'PSNR' of this pipeline; there are: KID"):
        run(cascade, held_out, "steps=1", by="PSNR")
    with pytest.raises(ContractError, match=r"prefer must be one of .*, got 'beauty'"):
        run(cascade, held_out, "steps=1", prefer="beauty")
    for tolerance in (-0.1, 1, float("nan")):
        with pytest.raises(
            ContractError, match=r"tolerance must be (from 0 to below 1|a finite|a nu)"
        ):
            run(cascade, held_out, "steps=1", prefer="speed", tolerance=tolerance)
    with pytest.raises(ContractError, match="a tolerance is for the preference speed, got quality"):
        run(cascade, held_out, "steps=1", tolerance=0.1)
    with pytest.raises(ContractError, match="extractor_path is for extractors by name"):
        run(cascade, held_out, "steps=1", extractor_path=held_out)
    with pytest.raises(DataError, match="at least 6 held-out images and as many samples"):
        run(cascade, held_out, "steps=1", num_images=4)
    with pytest.raises(ContractError, match="a budget of 9 images is too small for 3 settings"):
        run(cascade, held_out, "steps=1,2", budget_images=9)
    assert calls == []


def test_latents_are_not_tried(held_out, run):
    stage = DiffusionStage.build(
        Contract(Space(size_px=16, channels=5, kind="latents")),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1},
        embedding_dim=32,
    )
    with pytest.raises(ContractError, match="stage 'base' gives latents"):
        run(CascadePipeline.from_stages({"base": stage}), held_out, "steps=1", num_images=6)


def test_more_pictures_than_are_held_out_cannot_be_restored(
    upsampler, held_out, run, lite_of_random_weights, unlabelled
):
    pipeline = CascadePipeline.from_stages({"up": unlabelled(upsampler)})
    with pytest.raises(DataError, match="17 images were requested, but there are 16"):
        run(pipeline, held_out, "steps=1", num_images=17)
    for few in (-1, 0, 1):
        with pytest.raises(DataError, match=rf"at least 2 held-out images .* got 16 and {few}"):
            run(pipeline, held_out, "steps=1", num_images=few)


def test_what_restores_has_no_consistency_to_decide_by(
    upsampler, held_out, run, lite_of_random_weights, unlabelled
):
    stage = unlabelled(upsampler, degradation=Degradation())
    pipeline = CascadePipeline.from_stages({"up": stage})
    with pytest.raises(ContractError, match="no figure 'LR' of this pipeline"):
        run(pipeline, held_out, "steps=1", num_images=3, by="LR")


def test_other_work_on_the_machine_does_not_make_settings_slow(
    cascade, upsampler, held_out, extractor, unlabelled
):
    """Sleep stands for the time in which other processes have the CPU."""
    pytest.importorskip("torchmetrics")
    alone = unlabelled(upsampler)
    for stage in (cascade.stages["base"], cascade.stages["upsampler"], alone):
        stage.network.register_forward_hook(lambda *call: time.sleep(0.2))
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    settings = {name: stage.sampling.changed(steps=1) for name, stage in cascade.stages.items()}
    drawn = SetRunner(cascade, pictures, extractor, seed=0).run(settings, range(2))
    pipeline = CascadePipeline.from_stages({"up": alone})
    task = task_of(pipeline.stages.contracts)
    runner = PairedRunner(pipeline, task, pictures, extractor, {}, seed=0)
    made = runner.run({"up": alone.sampling.changed(steps=1)}, [0])
    assert drawn.seconds.max() < 0.2  # two images share two calls
    assert made.seconds.max() < 0.2


def test_one_slow_picture_does_not_make_settings_slow(cascade, held_out, run, monkeypatch):
    original = SetRunner.run

    def slow_first(self, settings, places):
        seconds = torch.tensor([100.0 if place == 0 else 1.0 for place in places])
        return replace(original(self, settings, places), seconds=seconds)

    monkeypatch.setattr(SetRunner, "run", slow_first)
    result = run(cascade, held_out, "base.steps=4", num_images=6)
    assert result.outcomes[0].seconds_per_image == 1


# ---- alignment ----------------------------------------------------------------------------------


def test_settings_are_ranked_by_how_well_images_show_their_prompts(
    prompted, colour_pictures, colour_model, run, extractor
):
    axes = ("base.guidance=1,3", "base.guidance_interval=[0,5]")
    result = run(prompted, colour_pictures, *axes, by="R@1", alignment=colour_model)
    figures = [next(s for s in each.scores if s.name == "R@1-Colours") for each in result.outcomes]
    assert [each.value for each in figures] == sorted((e.value for e in figures), reverse=True)
    assert all((each.n, each.better) == (16, "higher") for each in figures)
    settings = result.outcomes[0].candidate.settings
    stages = {name: stage.with_sampling(settings[name]) for name, stage in prompted.stages.items()}
    whole = evaluate(
        CascadePipeline.from_stages(stages),
        colour_pictures,
        alignment=colour_model,
        extractor=extractor,
    ).whole
    assert figures[0].value == pytest.approx(whole.score("R@1-Colours").value, abs=1e-6)


def test_a_figure_of_too_few_judged_images_is_one_line_before_anything_is_made(
    prompted, colour_pictures, colour_model, run, runs
):
    pictures = RealPictures(colour_pictures, name="")
    colour_model.trained_on = [pictures.key(place) for place in range(7)]
    axes = ("base.guidance=1,2,3,4",)  # 8 images of each, then 16 of the best two
    options = {"by": "R@1", "alignment": colour_model, "budget_images": 48}
    with pytest.raises(DataError, match=r"R@1-Colours needs at least 2 images .* first 8 images 1"):
        run(prompted, colour_pictures, *axes, **options)
    assert runs == []
    colour_model.trained_on = colour_model.trained_on[:6]
    assert run(prompted, colour_pictures, *axes, **options).by == "R@1"

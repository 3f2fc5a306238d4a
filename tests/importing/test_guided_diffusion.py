"""Checkpoints of guided diffusion against an independent forward pass, one test per trap."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from adm_reference import Reference
from safetensors.torch import save_file

from cascade import CascadePipeline, Inputs, import_stage, load_stage
from cascade.conditioning.assembling import request_signals
from cascade.conditioning.inputs import Request
from cascade.conditioning.labels import Labels
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.errors import CascadeError, ContractError, WeightsError
from cascade.importing.adm_shapes import FIRST, choose_prefix, find_published
from cascade.importing.importing import NEEDED
from cascade.importing.weight_files import fill_classes
from cascade.networks.embedding import embedding_for
from cascade.space import Space

T = torch.tensor([0, 517, 999])
DRAW = torch.Generator().manual_seed(1)
X = torch.randn(3, 3, 8, 8, generator=DRAW)


def write(folder, reference, name="model.safetensors", prefix=""):
    file = folder / name
    weights = {f"{prefix}{key}": each.float() for key, each in reference.weights.items()}
    if file.suffix == ".safetensors":
        save_file(weights, file)
    else:
        torch.save(weights, file)
    return file


def output(stage, *, labels=None, low_res=None):
    """What the stage's network predicts in float64."""
    stage = stage.double()
    inputs = {} if labels is None else {"labels": labels[:, None]}
    inputs |= {} if low_res is None else {"image": low_res}
    request = Request(
        inputs=Inputs(inputs), previous=None, space=stage.space, size_px=(8, 8),
        augmentation_level=0.0, noise=SeededNoise([0, 1, 2]),
    )  # fmt: skip
    signals = request_signals(stage.conditions, request) if inputs else Signals()
    with torch.no_grad():
        return stage.predict(X.double(), T, signals)


def check(reference, stage, **inputs):
    torch.testing.assert_close(
        output(stage, **inputs), reference(X, T, *inputs.values()), rtol=1e-5, atol=1e-5
    )


KINDS = {
    "residual resampling, legacy order": {},
    "new order": {"new_order": True},
    "convolutions resample, the embedding is added": {
        "resblock_updown": False, "scale_shift": False,
    },
    "heads of 8 channels": {"head_channels": 8},
    "several blocks, attention at two levels": {
        "mult": (1, 1, 2), "res_blocks": 2, "attention_ds": (2, 4),
    },
    "first level narrower than the time": {"channels": 64, "mult": (0.5, 1)},
    "one level": {"mult": (1,), "attention_ds": (1,)},
    "no learned variance": {"learn_sigma": False},
}  # fmt: skip


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS.keys())
def test_the_stage_predicts_what_the_original_predicts(tmp_path, flags):
    reference = Reference(**flags)
    stage = import_stage(
        write(tmp_path, reference),
        size_px=8,
        heads=None if reference.head_channels else 4,
        head_channels=reference.head_channels,
        attention_order="new" if reference.new_order else "legacy",
    )
    assert stage.process.learned_variance == reference.learn_sigma
    check(reference, stage)


def test_the_order_of_queries_keys_and_values_matters(tmp_path):
    reference = Reference()
    stage = import_stage(write(tmp_path, reference), size_px=8, heads=4, attention_order="new")
    assert (output(stage) - reference(X, T)).abs().max() > 1e-3


def test_the_number_of_heads_matters(tmp_path):
    reference = Reference()
    stage = import_stage(write(tmp_path, reference), size_px=8, heads=2)
    assert (output(stage) - reference(X, T)).abs().max() > 1e-3


def test_the_small_number_in_the_norms_is_1e_5(tmp_path):
    other = Reference(eps=1e-6)
    for name, each in other.weights.items():  # small features, so that it shows
        if name.startswith("input_blocks.0"):
            each *= 1e-3
    stage = import_stage(write(tmp_path, other), size_px=8, heads=4)
    assert (output(stage) - other(X, T)).abs().max() > 1e-3
    other.eps = 1e-5
    check(other, stage)


def test_class_labels_and_their_names(tmp_path):
    reference = Reference(classes=3)
    names = ["tench", "goldfish", "shark"]
    stage = import_stage(write(tmp_path, reference), size_px=8, heads=4, class_names=names)
    check(reference, stage, labels=torch.tensor([2, 0, 1]))
    assert dict(stage.conditions[0].classes) == {"class": names}
    numbered = import_stage(write(tmp_path, reference), size_px=8, heads=4)
    assert dict(numbered.conditions[0].classes) == {"class": ["0", "1", "2"]}


def test_an_upsampler_takes_its_image_upscaled_bilinearly(tmp_path):
    reference = Reference(is_upsampler=True, classes=2)
    stage = import_stage(write(tmp_path, reference), size_px=8, low_size_px=2, heads=4)
    low_res = torch.randint(0, 256, (3, 3, 2, 2), generator=DRAW) / 127.5 - 1
    check(reference, stage, labels=torch.tensor([1, 0, 1]), low_res=low_res)


def test_six_output_channels_are_noise_and_variances(tmp_path):
    stage = import_stage(write(tmp_path, Reference()), size_px=8, heads=4)
    prediction, variance = stage.process.split(output(stage))
    assert prediction.shape == variance.shape == X.shape
    assert stage.process.prediction == "eps"
    with torch.no_grad():
        stage = stage.float().with_sampling(stage.sampling.changed(steps=2))
    assert stage.run([0]).shape == (1, 3, 8, 8)


def test_averaged_weights_are_taken_beside_raw_ones(tmp_path, caplog):
    caplog.set_level("INFO", logger="cascade")
    raw, averaged = Reference(), Reference(channels=64)
    file = tmp_path / "both.pt"
    as_floats = [{k: v.float() for k, v in each.weights.items()} for each in (raw, averaged)]
    torch.save({"model": as_floats[0], "ema": as_floats[1], "step": 7}, file)
    stage = import_stage(file, size_px=8, heads=4)
    check(averaged, stage)
    assert "took the averaged weights (ema.), not model." in caplog.text


def test_half_precision_files_load_in_float32(tmp_path):
    reference = Reference()
    for name, each in reference.weights.items():
        reference.weights[name] = each.half().double()
    file = tmp_path / "half.safetensors"
    save_file({name: each.half() for name, each in reference.weights.items()}, file)
    stage = import_stage(file, size_px=8, heads=4)
    assert stage.dtype == torch.float32
    check(reference, stage)


PUBLISHED = {  # file: channels, blocks, widths, levels with attention, class; and what follows
    "64x64_diffusion": (192, 3, (1, 2, 3, 4), 3, True, "64 new cosine 1000"),
    "128x128_diffusion": (256, 2, (1, 1, 2, 3, 4), 3, True, "128 4-heads legacy linear 1000"),
    "256x256_diffusion": (256, 2, (1, 1, 2, 2, 4, 4), 3, True, "256 legacy linear 1000"),
    "512x512_diffusion": (256, 2, (0.5, 1, 1, 2, 2, 4, 4), 3, True, "512 legacy linear 1000"),
    "64_256_upsampler": (192, 2, (1, 1, 2, 2, 4, 4), 3, True, "64->256 4-heads legacy linear 1000"),
    "128_512_upsampler": (192, 2, (1, 1, 2, 2, 4, 4), 2, True, "128->512 legacy linear 1000"),
    "imagenet64_uncond_100M": (
        128, 3, (1, 2, 3, 4), 2, False, "64 4-heads legacy cosine 4000 rescaled",
    ),
    "cifar10_uncond_50M": (
        128, 3, (1, 2, 2, 2), 2, False, "32 4-heads legacy cosine 4000 rescaled",
    ),
    "imagenet64_cond_270M": (192, 3, (1, 2, 3, 4), 2, False, "64 4-heads legacy cosine 4000"),
    "lsun_uncond_100M": (128, 2, (1, 1, 2, 2, 4, 4), 1, False, "256 1-heads legacy linear 1000"),
    "upsample_cond_500K": (
        192, 2, (1, 1, 2, 2, 4, 4), 2, False, "64->256 4-heads legacy linear 4000",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "facts"), PUBLISHED.items())
def test_every_published_checkpoint_is_known_by_its_shapes(name, facts):
    channels, blocks, widths, attention, residual, expected = facts
    levels = len(widths)
    shapes = {
        "model_channels": channels,
        "layers_per_block": blocks,
        "block_out_channels": [int(each * channels) for each in widths],
        "attention": [level >= levels - attention for level in range(levels)],
        "residual_resampling": residual,
    }
    known = find_published(shapes, is_upsampler="upsample" in name)
    low = "" if known.low_size_px is None else f"{known.low_size_px}->"
    words = [f"{low}{known.size_px}", f"{known.heads}-heads", known.attention_order]
    words += [known.noise_schedule, str(known.train_steps), "rescaled" * known.rescale_timesteps]
    assert " ".join(each for each in words if each not in ("None-heads", "")) == expected


@pytest.mark.parametrize("rescaled", [True, False])
def test_models_of_4000_steps_take_their_own_timesteps(tmp_path, rescaled):
    reference = Reference(resblock_updown=False)
    stage = import_stage(
        write(tmp_path, reference), size_px=8, heads=4, noise_schedule="cosine", train_steps=4000,
        rescale_timesteps=rescaled,
    )  # fmt: skip
    assert len(stage.process.schedule.alpha_bar) == 4000
    t = torch.tensor([0, 2001, 3999])
    with torch.no_grad():
        ours = stage.double().predict(X, t, Signals())
    torch.testing.assert_close(ours, reference(X, t / 4 if rescaled else t), rtol=1e-5, atol=1e-5)
    stage.float().save_pretrained(tmp_path / "stage")
    again = load_stage(tmp_path / "stage").double()
    with torch.no_grad():
        assert again.predict(X, t, Signals()).equal(ours)


def test_the_longest_average_is_taken():
    names = [f"{each}.{FIRST}" for each in ("ema_0.999", "model", "ema_0.9999", "ema_0.99")]
    assert choose_prefix(names) == ("ema_0.9999.", ["ema_0.99.", "ema_0.999.", "model."])


def test_no_weights_of_other_models_are_fetched_from_the_hub():
    from huggingface_hub.utils import filter_repo_objects

    weights = "diffusion_pytorch_model.safetensors"
    files = ["model_index.json", "unet/config.json", f"unet/{weights}", "scheduler/config.json"]
    others = ["safety_checker/model.safetensors", "watermarker/" + weights, "vae/" + weights]
    others += ["unet/diffusion_pytorch_model.bin", "text_encoder/model.safetensors", "big.ckpt"]
    top = ["config.json", weights, "scheduler_config.json"]
    for repository in (files, top):
        assert list(filter_repo_objects([*repository, *others], **NEEDED)) == repository


def test_a_saved_stage_is_loaded_again_and_samples(tmp_path, command):
    file = write(tmp_path, Reference(classes=3))
    out = tmp_path / "stage"
    outcome = command("import", file, "--out", out, "--size", 8, "--heads", 4)
    assert outcome.code == 0, outcome.err
    stage = import_stage(file, size_px=8, heads=4)
    labels = torch.tensor([0, 1, 2])
    assert output(load_stage(out), labels=labels).equal(output(stage, labels=labels))
    outcome = command("generate", out, "-n", 2, "--steps", 2, "--class", "2", "-o", tmp_path / "x")
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "x").glob("0*.png"))) == 2
    outcome = command("import", file, "--out", out, "--size", 8, "--heads", 4)
    assert outcome.code == 1
    assert "holds a stage already" in outcome.err


def test_a_base_model_and_an_upsampler_join(tmp_path):
    base = import_stage(write(tmp_path, Reference(classes=2)), size_px=8, heads=4)
    file = write(tmp_path, Reference(is_upsampler=True, classes=2), "up.safetensors")
    upsampler = import_stage(file, size_px=16, low_size_px=8, heads=4)
    pipeline = CascadePipeline.from_stages({"base": base, "upsampler": upsampler})
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(labels="1", seed=0, steps=2, output_type="pt").images
    assert images.shape == (1, 3, 16, 16)


def test_imported_stages_are_chained_by_the_command(tmp_path, command):
    base = import_stage(write(tmp_path, Reference()), size_px=8, heads=4)
    base.save_pretrained(tmp_path / "base")
    base.save_pretrained(tmp_path / "base")  # over the first one
    recipe = tmp_path / "pipeline.yaml"
    recipe.write_text(
        "kind: pipeline\nname: imported\nstages:\n  - {name: base, recipe: imported}\n"
    )
    stage = f"base={tmp_path / 'base'}"
    outcome = command("chain", recipe, "--stage", stage, "--out", tmp_path / "pipeline")
    assert outcome.code == 0, outcome.err
    assert CascadePipeline.from_pretrained(tmp_path / "pipeline").stages.names == ["base"]


# ---- bad input ----------------------------------------------------------------------------------


def fails(error, words, *arguments, **options):
    with pytest.raises(error) as caught:
        import_stage(*arguments, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_weights_are_listed(tmp_path):
    reference = Reference()
    reference.weights["classifier.weight"] = torch.zeros(2)
    file = write(tmp_path, reference)
    fails(WeightsError, "unknown to this layout: classifier.weight", file, size_px=8, heads=4)


def test_missing_weights_are_listed(tmp_path):
    reference = Reference()
    del reference.weights["out.0.bias"]
    file = write(tmp_path, reference)
    fails(WeightsError, "lacks weights of this layout: out.0.bias", file, size_px=8, heads=4)


def test_other_layouts_are_refused(tmp_path):
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    fails(WeightsError, "unknown layout", tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    fails(WeightsError, "unknown layout", tmp_path / "empty")
    classifier = {k: v for k, v in Reference().weights.items() if not k.startswith("output_")}
    save_file({k: v.float() for k, v in classifier.items()}, tmp_path / "classifier.safetensors")
    fails(WeightsError, "is it a classifier", tmp_path / "classifier.safetensors", size_px=8)


@pytest.mark.parametrize("shape", [(3, 4), (3, 1), (4, 128)])
def test_class_embeddings_that_do_not_fit_are_refused(shape):
    embedding = embedding_for(Contract(Space(size_px=8), (labels_of(3),)).slots, 128)
    with pytest.raises(WeightsError, match="but this network takes 3 of length 128"):
        fill_classes(embedding, torch.zeros(shape), Path("a.pt"))


def labels_of(count: int) -> Labels:
    return Labels(fields={"class": [str(number) for number in range(count)]}, drop=0.0)


def test_names_that_are_no_blocks_are_refused_in_one_line(tmp_path):
    weights = {"output_blocks.0.weight": torch.zeros(2)}
    weights |= {name: each.float() for name, each in Reference().weights.items()}
    save_file(weights, tmp_path / "odd.safetensors")
    fails(WeightsError, "is it a classifier, or damaged", tmp_path / "odd.safetensors", size_px=8)


def test_missing_files_are_refused(tmp_path):
    fails(WeightsError, "no weights at", tmp_path / "none.pt")


class Trap:
    def __reduce__(self):
        return (print, ("code ran",))


def test_pickled_objects_are_not_loaded(tmp_path, capsys):
    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    fails(WeightsError, "could run code", tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CascadeError):
        import_stage(tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("no weights at all")
    with pytest.raises(CascadeError):
        import_stage(tmp_path / "text.pt")
    assert "code ran" not in capsys.readouterr().out


def test_options_without_effect_are_refused(tmp_path):
    file = write(tmp_path, Reference())
    fails(ContractError, "heads must be", file, size_px=8, heads=0)
    fails(ContractError, "head_channels must be", file, size_px=8, head_channels=0)
    fails(ContractError, "attention_order must be one of", file, heads=4, attention_order="mine")
    fails(ContractError, "noise_schedule must be one of", file, heads=4, noise_schedule="mine")
    fails(ContractError, "no option 'head': did you mean 'heads'", file, head=4)
    fails(ContractError, "text_encoder has no effect", file, text_encoder="t5")
    fails(ContractError, "low_size_px is for upsamplers", file, size_px=8, low_size_px=4)
    fails(ContractError, "no classes", file, size_px=8, heads=4, class_names=["a"])
    fails(ContractError, "state size_px", file, heads=4)
    fails(ContractError, "not both", file, size_px=8, heads=4, head_channels=8)
    fails(WeightsError, "state other heads", file, size_px=8, head_channels=48)
    classes = write(tmp_path, Reference(classes=3), "classes.safetensors")
    fails(ContractError, "3 classes, got 1", classes, size_px=8, heads=4, class_names=["a"])

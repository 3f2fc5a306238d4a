"""An autoencoder and a stage of its latents, from recipes to pictures."""

from __future__ import annotations

import json

import pytest
import torch

from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.pipelines import chain_pipeline, check_recipe
from cascade.building.training import build_trainer
from cascade.errors import CascadeError, RecipeError
from cascade.imaging.reading import read_image
from cascade.recipe.reading import load_stage_recipe
from cascade.space import Space
from cascade.stage_kinds import load_stage
from cascade.training import processes

TRAIN = "train: {batch_size: 8, images: 32, warmup_images: 8, precision: fp32, sample_count: 2"
CODER = f"""
kind: stage
name: coder
space: {{size_px: 16}}
network: {{kind: autoencoder_kl, channels: [8, 8], norm_groups: 4}}
data: {{path: PICTURES, crop_px: 8}}
{TRAIN}, objective: autoencoding}}
"""
LATENT = f"""
kind: stage
name: latent
space: {{kind: latents, size_px: 8, channels: 4}}
condition: {{labels: {{fields: [class], drop: 0.2}}}}
network: {{kind: unet, channels: [8], blocks: 1}}
data: {{path: PICTURES, flip: [], encoder: RUN}}
{TRAIN}}}
sampling: {{steps: 2}}
"""
PIPELINE = """
kind: pipeline
name: pair
stages:
  - {name: base, recipe: latent.yaml, sampling: {steps: 3, guidance: 1.5}}
  - {name: decoder, recipe: coder.yaml}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    """Recipes and the runs of an autoencoder and of a stage of its latents."""
    folder = tmp_path_factory.mktemp("latent")
    coder, latent = (text.replace("PICTURES", str(pictures)) for text in (CODER, LATENT))
    (folder / "coder.yaml").write_text(coder)
    (folder / "latent.yaml").write_text(latent.replace("RUN", str(folder / "coder")))
    (folder / "pair.yaml").write_text(PIPELINE)
    for name in ("coder", "latent"):
        changes = [] if name == "coder" else [f"data.cache_dir={folder / 'cache'}"]
        build_trainer(load_stage_recipe(folder / f"{name}.yaml", changes), folder / name).run()
    return folder


def meters(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return next(line for line in reversed(lines) if line.get("kind") == "meters")


def test_training_measures_shift_and_scale_of_the_latents(folder, pictures):
    stage = load_stage(folder / "coder" / "stage")
    assert isinstance(stage, AutoencoderStage)
    images = build_trainer(load_stage_recipe(folder / "coder.yaml"), folder / "other").images
    whole = torch.stack([images.sized(i).image for i in range(18)]).float() / 127.5 - 1
    latents = stage.encode(whole)
    assert float(latents.std(correction=0)) == pytest.approx(1, rel=0.02)
    assert float(latents.mean()) == pytest.approx(0, abs=0.02)
    assert {"psnr", "kl", "dead_units", "latent_std"} <= meters(folder / "coder").keys()


def test_the_stage_s_contract_names_the_encoder(folder):
    coder, latent = (load_stage(folder / name / "stage") for name in ("coder", "latent"))
    assert isinstance(coder, AutoencoderStage)
    assert latent.space == coder.latent_space
    assert latent.space.encoder == coder.latents.encoder != ""


def test_every_process_knows_the_scale_that_one_of_them_measured(folder, tmp_path, monkeypatch):
    trainer = build_trainer(load_stage_recipe(folder / "coder.yaml"), tmp_path / "run")
    scaled = load_stage(folder / "coder" / "stage").contract
    kind = type(trainer.accelerator)
    monkeypatch.setattr(kind, "is_main_process", property(lambda self: False))
    monkeypatch.setattr(processes, "all_of", lambda accelerator, items: [*items, scaled])
    stage = trainer._finish()
    assert stage.contract == scaled
    assert stage.latents.scale != 1


def test_its_samples_are_shown_as_pictures(folder):
    (file,) = (folder / "latent" / "samples").glob("*.png")
    assert read_image(file).shape[-3:] == (3, 16, 34)


def test_held_out_images_are_measured_as_pictures_and_as_latents(folder, held_out, tmp_path):
    for name, changes in (
        ("coder", [f"data.validation={held_out}"]),
        ("latent", ["data.validation=0.4", f"data.cache_dir={tmp_path}"]),
    ):
        recipe = load_stage_recipe(folder / f"{name}.yaml", changes)
        build_trainer(recipe, tmp_path / name).run()
        lines = [json.loads(each) for each in (tmp_path / name / "log.jsonl").open()]
        *_, line = (each for each in lines if each.get("kind") == "validation")
        assert line["loss"] > 0
        assert ("psnr" in line) == (name == "coder")
    best = load_stage(tmp_path / "coder" / "stage-best")
    assert isinstance(best, AutoencoderStage)
    assert best.latents.encoder  # shift and scale were measured for it too


def test_an_autoencoder_starts_from_another_and_not_from_other_stages(folder, tmp_path):
    def trainer(run: str):
        recipe = load_stage_recipe(folder / "coder.yaml", [f"train.init_from={folder / run}"])
        return build_trainer(recipe, tmp_path / run)

    trained = load_stage(folder / "coder" / "stage").state_dict()
    state = trainer("coder").averaged.stage.state_dict()
    assert all(torch.equal(state[name], each) for name, each in trained.items())
    with pytest.raises(CascadeError, match="cannot start from that diffusion stage"):
        trainer("latent")


def test_both_join_to_a_pipeline(folder):
    runs = {"base": folder / "latent", "decoder": folder / "coder"}
    pipeline = chain_pipeline(folder / "pair.yaml", runs, folder / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(num_images=2, seed=0, labels="red", output_type="pt").images
    assert images.shape == (2, 3, 16, 16)
    again = type(pipeline).from_pretrained(folder / "pipeline")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(again(num_images=2, seed=0, labels="red", output_type="pt").images, images)


def test_a_decoder_of_another_training_is_refused(folder):
    stage = load_stage(folder / "coder" / "stage")
    assert isinstance(stage, AutoencoderStage)
    with torch.no_grad():
        next(stage.network.parameters()).add_(0.1)
    stage.scaled(0.0, 1.0).save_pretrained(folder / "changed")
    runs = {"base": folder / "latent", "decoder": folder / "changed"}
    with pytest.raises(CascadeError, match=r"'base' gives encoder .*, 'decoder' takes "):
        chain_pipeline(folder / "pair.yaml", runs, folder / "refused")


def test_a_run_resumes_only_with_its_own_encoder(folder, tmp_path):
    run, changes = tmp_path / "run", [f"data.cache_dir={tmp_path}", "train.images=16"]
    build_trainer(load_stage_recipe(folder / "latent.yaml", changes), run).run()
    stage = load_stage(folder / "coder" / "stage")
    assert isinstance(stage, AutoencoderStage)
    stage.scaled(0.0, 3.0).save_pretrained(tmp_path / "changed")
    changes += [f"data.encoder={tmp_path / 'changed'}", "train.images=32"]
    with pytest.raises(CascadeError, match="encoder_"):
        build_trainer(load_stage_recipe(folder / "latent.yaml", changes), run)


def test_the_vae_of_a_diffusers_folder_is_an_encoder(folder, tmp_path):
    stage = load_stage(folder / "coder" / "stage")
    assert isinstance(stage, AutoencoderStage)
    vae = folder / "coder" / "stage" / "vae"
    changes = [f"data.encoder={vae}", f"data.cache_dir={tmp_path}"]
    trainer = build_trainer(load_stage_recipe(folder / "latent.yaml", changes), tmp_path / "run")
    assert trainer.averaged.stage.space == stage.latent_space
    space = Space(size_px=16)
    assert AutoencoderStage.from_diffusers(vae, space).latent_space == stage.latent_space


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("latent", ["data.encoder=null"], "key 'data.encoder': the stage makes latents; name"),
        ("latent", ["data.encoder=nowhere"], "key 'data.encoder': no trained stage in nowhere"),
        ("latent", ["data.encoder=LATENT"], "is a diffusion stage, not an autoencoder"),
        ("latent", ["data.encoder=UNSCALED"], "were never scaled; train it to the end"),
        ("latent", ["space.channels=3"], "latents of channels 4, but the stage's space has 3"),
        ("latent", ["space.size_px=16"], r"of size_px \(8, 8\), but the stage's space has \(16"),
        ("latent", ["data.flip=[x]"], "key 'data.flip': the latents of images are not"),
        ("latent", ["condition.low_resolution.size_px=4"], "that makes latents takes no image"),
        ("latent", ["train.objective=autoencoding"], "not a diffusion stage"),
        ("coder", ["data.encoder=x"], "an encoder is for stages that make latents"),
        ("coder", ["condition.labels.fields=[class]"], "key 'condition': an autoencoder stage"),
        ("coder", ["sampling.guidance=2"], "key 'sampling': an autoencoder stage has no sampling"),
        ("coder", ["diffusion.prediction=x0"], "key 'diffusion': an autoencoder stage has no"),
        ("coder", ["train.objective=denoising"], "denoising trains diffusion stages"),
        ("coder", ["space.size_px=17"], "key 'network': an autoencoder that makes images smaller"),
        ("coder", ["data.crop_px=7"], "key 'data.crop_px': crop_px must be at most"),
        ("coder", ["autoencoding.beta=-1"], "key 'autoencoding.beta'"),
        ("coder", ["network.norm_groups=3"], "key 'network.channels': channels must be"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(folder, tmp_path, name, changes, message):
    unscaled = AutoencoderStage.build(
        Space(size_px=16), network_options={"channels": [8, 8], "norm_groups": 4}
    )
    unscaled.save_pretrained(tmp_path / "unscaled")
    places = {"LATENT": str(folder / "latent"), "UNSCALED": str(tmp_path / "unscaled")}
    for word, place in places.items():
        changes = [each.replace(word, place) for each in changes]
    with pytest.raises(RecipeError, match=message):
        build_trainer(
            load_stage_recipe(folder / f"{name}.yaml", [*changes, f"data.cache_dir={tmp_path}"]),
            tmp_path / "run",
        )
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_recipe_can_be_checked_before_its_encoder_is_trained(folder):
    recipe = load_stage_recipe(folder / "latent.yaml", ["data.encoder=runs/later"])
    (line,) = check_recipe(recipe)
    assert line.startswith("latent: noise -> 8 px, unet with")

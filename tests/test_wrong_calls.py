"""Calls as users type them: what works, and the one line that answers what does not."""

from __future__ import annotations

from pathlib import Path
from typing import get_overloads

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from cascade.chain import StageChain
from cascade.conditioning.inputs import Inputs
from cascade.errors import CascadeError
from cascade.imaging.picture import Picture
from cascade.pipeline import CascadePipeline
from cascade.sampling.overrides import Overrides
from cascade.sampling.walk import Hooks, Known
from cascade.space import Space
from cascade.stage import Run

RGB = Image.new("RGB", (16, 16), (200, 30, 90))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pipeline(base_stage, upsampler) -> CascadePipeline:
    pipeline = CascadePipeline.from_stages({"base": base_stage, "up": upsampler})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.with_sampling(steps=1)


@pytest.fixture
def colours(colouriser) -> CascadePipeline:
    return CascadePipeline.from_stages({"colour": colouriser}).with_sampling(steps=1)


@pytest.fixture
def saved(pipeline, tmp_path) -> Path:
    pipeline.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def line(call) -> str:
    """The one line with which a call is refused."""
    with pytest.raises((CascadeError, AttributeError)) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith((".", "?", "known: base, up", "known: stages")) or "known: " in text
    return text


# ---- calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_images": "a cat"}, "num_images must be a whole number of at least 1, got 'a cat'"),
        ({"num_images": True}, "num_images must be a whole number of at least 1, got True"),
        ({"num_images": 2.0}, "got 2.0; texts go in prompt, class names in labels"),
        (
            {"prompt": "a cat"},
            "this pipeline takes no prompt; it takes labels: animal (cat, dog), style (noto, ",
        ),
        ({"negative_prompt": "a dog"}, "this pipeline takes no negative prompt; it takes labels"),
        ({"prompt": 4}, "one per image, got 4; the number of images goes in num_images"),
        ({"prompt": []}, "prompt is an empty list; give at least one text, or leave it out"),
        ({"num_inference_steps": 2}, "no argument 'num_inference_steps': use steps"),
        ({"guidance_scale": 2.0}, "no argument 'guidance_scale': use guidance"),
        ({"num_images_per_prompt": 2}, "use num_images"),
        ({"cross_attention_kwargs": {}}, "no argument 'cross_attention_kwargs'"),
        ({"latents": None}, "no argument 'latents': noise follows from seed or generator"),
        ({"lables": "cat"}, "unknown argument 'lables': did you mean 'labels'"),
        ({"scheduler": None}, "no argument 'scheduler': use sampler"),
        ({"image": "x.png"}, "got 'x.png'; open the file first, with PIL.Image.open"),
        ({"image": Path("x.png")}, "open the file first, with PIL.Image.open"),
        ({"image": ["x.png"]}, "got a list of str; open the file first"),
        ({"image": 3}, "image must be a PIL image, a list of them, an array or a tensor, got 3"),
        ({"image": [torch.zeros(3, 16, 16)]}, "a list of Tensor; stack them"),
        ({"image": Picture.from_pil(RGB)}, "got Picture; use its to_pil()"),
        ({"image": [RGB, RGB.resize((8, 9))]}, "same size, at least one; got 16x16 and 8x9 px"),
        ({"image": []}, "at least one; got none"),
        (
            {"image": torch.zeros(3, 16, 16, dtype=torch.uint8)},
            "torch.uint8; for 8 bits divide",
        ),
        ({"image": np.zeros((16, 16, 3), np.int32)}, "arrays must be uint8, uint16 or floats in"),
        ({"image": np.full((16, 16, 3), -1.0)}, "float64 in [-1, -1]; tensors are in [-1, 1]"),
        ({"image": np.full((16, 16, 3), np.nan)}, "floats in [0, 1], got float64 in [nan, nan]"),
        ({"image": np.zeros(16, np.uint8)}, "must be (H, W), (H, W, C) or (B, H, W, C), got (16,)"),
        ({"labels": 3}, "labels must be class names such as 'cat' or {'class': 'cat'}"),
        ({"labels": [3]}, "for all images or one for each; got [3]"),
        ({"labels": {"animal": 0}}, "got [{'animal': 0}]"),
        ({"labels": torch.zeros(1, 1)}, "got Tensor"),
        ({"steps": 2.0}, "steps must be a whole number of at least 1, got 2.0"),
        ({"steps": np.array([2, 2])}, "steps must be a whole number of at least 1, got ndarray"),
        ({"guidance": torch.tensor(2.0)}, "guidance must be a number, got Tensor"),
        ({"seed": 1.5}, "a seed must be a whole number of at least 0, got 1.5"),
        ({"seed": -1}, "a seed must be at least 0, got -1"),
        ({"seed": True}, "a seed must be a whole number of at least 0, got True"),
        ({"seeds": {3}}, "seeds must be one whole number per image, got set"),
        ({"seeds": torch.tensor(3)}, "seeds must be one whole number per image, got Tensor"),
        ({"seeds": 3}, "seeds must be one whole number per image, got 3; for the seed of"),
        ({"generator": 3}, "a torch.Generator or a list of one per image, got 3; a number goes in"),
        ({"generator": [generator(1)] * 2}, "got 2 generators for 1 images"),
        ({"generator": generator(1), "seed": 1}, "give only one of seed, seeds and generator"),
        ({"output_type": 3}, "output_type must be one of ('pil', 'pt', 'np'), got 3"),
        ({"return_dict": "yes"}, "return_dict must be True or False, got 'yes'"),
        ({"keep_intermediates": 1}, "keep_intermediates must be True or False, got 1"),
        ({"keep_intermediates": np.array([True])}, "must be True or False, got ndarray"),
        ({"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        ({"precision": ["fp32"]}, "precision must be one of"),
        ({"precision": torch.bfloat16}, "precision must be one of ('auto', 'fp32', 'bf16')"),
        ({"start_at": 1}, "start_at must be the name of a stage, got 1"),
        ({"callback_on_step_end": 3}, "callback_on_step_end must be a function, got 3"),
        ({"callback_on_step_end_tensor_inputs": "x_t"}, "list of ['x_t', 'x0'], got 'x_t'"),
        ({"sampler": 3}, "sampler must be a name such as 'ddim', a Sampler or a scheduler"),
        ({"inputs": 3}, "inputs must be a mapping by name, got 3"),
        ({"overrides": {"steps": 1}}, "overrides must be Overrides({...}), got dict"),
    ],
)
def test_a_wrong_call_gets_one_line(pipeline, arguments, words):
    assert words in line(lambda: pipeline(**arguments))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (3, "must be a dictionary with a new x_t, or None, got 3"),
        ({"latents": torch.zeros(1)}, "callback_on_step_end can change x_t only, not 'latents'"),
        ({"x0": torch.zeros(1, 3, 16, 16)}, "can change x_t only, not 'x0'"),
        ({"x_t": None}, "x_t of a callback must be a tensor (1, 3, 16, 16), got None"),
        ({"x_t": torch.zeros(1, 3, 4, 4)}, "must be a tensor (1, 3, 16, 16), got (1, 3, 4, 4)"),
    ],
)
def test_what_a_callback_returns_is_checked(pipeline, result, words):
    assert words in line(lambda: pipeline(callback_on_step_end=lambda *arguments: result))


def test_a_callback_may_return_the_arguments_that_it_got(pipeline):
    plain = pipeline(seed=1, steps=2, output_type="pt").images
    same = pipeline(seed=1, steps=2, output_type="pt", callback_on_step_end=lambda *a: a[3]).images
    assert same.equal(plain)


def test_a_pipeline_is_between_calls_after_an_error_in_a_callback(pipeline):
    with pytest.raises(ZeroDivisionError):
        pipeline(seed=0, callback_on_step_end=lambda *_: 1 / 0)
    assert (pipeline.current_stage, pipeline.num_timesteps) == (None, 0)


def test_a_callback_of_diffusers_that_needs_other_tensors_is_refused(pipeline):
    callback = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    words = "SDCFGCutoffCallback needs 'prompt_embeds', but callbacks get x_t and x0 only"
    assert words in line(lambda: pipeline(callback_on_step_end=callback))


def test_type_checkers_see_what_a_call_returns():
    first, second = get_overloads(CascadePipeline.__call__)
    assert first.__annotations__["return"] == "CascadeOutput"
    assert second.__annotations__["return_dict"] == "Literal[False]"
    assert second.__annotations__["return"] == "tuple[Any]"


def test_a_callback_cannot_interrupt_by_an_attribute(pipeline):
    def stop(pipeline, step, timestep, kwargs):
        pipeline._interrupt = True

    words = "no _interrupt: raise an exception in the callback to stop a call"
    assert words in line(lambda: pipeline(callback_on_step_end=stop))


def test_numbers_of_numpy_are_numbers(pipeline):
    numpy = {"steps": np.int64(1), "guidance": np.float32(1.5), "eta": np.float32(0.5)}
    plain = {"steps": 1, "guidance": 1.5, "eta": 0.5}
    first = pipeline(num_images=np.int64(2), seed=np.int64(3), output_type="pt", **numpy)
    second = pipeline(num_images=2, seed=3, output_type="pt", **plain)
    assert first.images.equal(second.images)
    assert first.settings == second.settings
    assert {type(first.settings["up"][name]) for name in numpy} == {int, float}


def test_overrides_of_another_shape_are_refused():
    for values in (3, {"steps": 3}, {"all": 3}):
        assert "settings by the name of a stage, or under 'all'" in line(
            lambda v=values: Overrides(v)
        )


# ---- generators ---------------------------------------------------------------------------------


def test_a_generator_seeds_by_its_initial_seed_and_keeps_its_state(pipeline):
    used = generator(5)
    torch.rand(3, generator=used)
    before = used.get_state()
    result = pipeline(num_images=2, generator=used, output_type="pt")
    assert result.seeds == [5, 6]
    assert result.images.equal(pipeline(num_images=2, seed=5, output_type="pt").images)
    assert used.get_state().equal(before)
    assert pipeline(num_images=2, generator=[generator(9), generator(4)]).seeds == [9, 4]


def test_generators_seed_upscaling_and_colouring(pipeline, colours):
    small = torch.rand(2, 3, 16, 16) * 2 - 1
    for run in (pipeline.upscale, colours.colourise):
        apart = [run(each, seed=seed) for each, seed in zip(small, (3, 8), strict=True)]
        assert run(small, generator=[generator(3), generator(8)]).equal(torch.stack(apart))
        assert run(small[0], generator=generator(3)).equal(apart[0])
        assert not run(small[0], generator=generator(8)).equal(apart[0])
        assert "got 1 generators for 2 images" in line(
            lambda run=run: run(small, generator=[generator(3)])
        )
        assert "give only one of seed and generator" in line(
            lambda run=run: run(small, generator=generator(3), seed=3)
        )


# ---- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image": "x.png"}, "got 'x.png'; open the file first, with PIL.Image.open"),
        ({"image": [RGB, "x.png"]}, "got a list of Image and str"),
        ({"image": {}}, "image must be a PIL image, a Picture, an array, a tensor, or a list"),
        ({"scale": "2"}, "scale must be a number, got '2'"),
        ({"scale": True}, "scale must be a number, got True"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"tile_px": "32"}, "tile_px must be a whole number of at least 1, got '32'"),
        ({"tile_px": 32.0}, "tile_px must be a whole number of at least 1, got 32.0"),
        ({"consistent": "yes"}, "consistent must be True or False, got 'yes'"),
        ({"precision": "fp16"}, "precision must be one of"),
        ({"inputs": 3}, "inputs must be a mapping by name, got 3"),
        ({"progress": 3}, "progress must be a function, got 3"),
        ({"num_inference_steps": 2}, "use steps"),
        ({"labels": "cat"}, "no argument 'labels': use inputs="),
        ({"tile": 32}, "unknown argument 'tile': did you mean 'tile_px'"),
        ({"seeds": [3]}, "seeds must be a whole number of at least 1, got [3]; it is their number"),
        ({"return_std": True}, "over seeds needs at least 2 seeds, got 1"),
    ],
)
def test_a_wrong_upscaling_gets_one_line(pipeline, arguments, words):
    assert words in line(lambda: pipeline.upscale(**({"image": RGB} | arguments)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image": "x.png"}, "open the file first, with PIL.Image.open"),
        ({"hints": "x.png"}, "hints must be a PIL image or a Picture, got str"),
        ({"scale": 2}, "no argument 'scale': the size follows from the stages or the image"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_a_wrong_colouring_gets_one_line(colours, arguments, words):
    assert words in line(lambda: colours.colourise(**({"image": RGB} | arguments)))


def test_arrays_of_either_byte_order_hold_the_same_image(pipeline):
    array = np.arange(8 * 8 * 3, dtype=np.uint16).reshape(8, 8, 3) * 300
    swapped = pipeline.upscale(array.astype(">u2"))
    assert swapped.dtype == ">u2"
    assert np.array_equal(swapped, pipeline.upscale(array))


@pytest.mark.parametrize("kind", ["complex64", "object", "U5", "bool", "uint32", "int64"])
def test_arrays_of_other_numbers_are_refused(pipeline, kind):
    array = np.ones((8, 8, 3)).astype(kind)
    words = f"image arrays must be uint8, uint16 or floats in [0, 1], got {array.dtype}."
    assert line(lambda: pipeline.upscale(array)) == words


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_arrays_hold_the_same_image_as_tensors(pipeline, dtype):
    array = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1
    scaled = {np.uint8: array, np.uint16: array.astype(np.uint16) * 257}.get(dtype, array / 255)
    scaled = scaled.astype(dtype)
    by_tensor, by_array = (
        pipeline(image=image, seed=0, output_type="pt", precision="fp32").images
        for image in (tensor, scaled)
    )
    assert (by_array - by_tensor).abs().max() < 1e-3
    large = pipeline.upscale(scaled, precision="fp32")
    assert (large.dtype, large.shape) == (dtype, (2, 32, 32, 3))
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    expected = (pipeline.upscale(tensor, precision="fp32").permute(0, 2, 3, 1).numpy() + 1) / 2
    assert np.abs(large / top - expected).max() < 0.003
    assert np.array_equal(pipeline.upscale(scaled[0], precision="fp32"), large[0])
    assert pipeline.upscale([scaled[0], scaled[0, :8]])[1].shape == (16, 32, 3)
    assert pipeline.upscale(scaled[0, ..., 0]).shape == (32, 32)


# ---- the parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size_px": 3.5}, "size_px must be a whole number, got 3.5"),
        ({"size_px": "32"}, "size_px must be a whole number, got '32'"),
        ({"size_px": True}, "size_px must be a whole number, got True"),
        ({"size_px": (32, 3.5)}, "size_px must be a whole number, got 3.5"),
        ({"size_px": (32,)}, "size_px must be a whole number or (height, width), got 1 numbers"),
        (
            {"size_px": (3, 2, 1)},
            "a whole number or (height, width), got 3 numbers",
        ),
        ({"channels": "3"}, "channels must be a whole number, got '3'"),
        ({"channels": 3.0}, "channels must be a whole number, got 3.0"),
        ({"range": 3}, "range must be two numbers, the lower one first; got 3"),
        ({"range": ("a", "b")}, "range must be a number, got 'a'"),
        ({"kind": "x"}, "kind must be one of ('pixels', 'latents', 'embeddings'), got 'x'"),
        ({"resize_kernel": "x"}, "resize_kernel must be one of"),
    ],
)
def test_spaces_of_a_wrong_kind_are_refused(values, words):
    assert words in line(lambda: Space(**({"size_px": 16} | values)))


MASK = torch.ones(16, 16, dtype=torch.bool)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (lambda: Known(torch.zeros(2, 3, 16, 16), MASK), "for all 1 images or for 1, got 2"),
        (lambda: Known(torch.zeros(3, 16, 16), MASK), "must be an image (B, C, h, w) and a bool"),
        (lambda: Known(torch.zeros(1, 3, 16, 16), MASK.float()), "(16, 16) torch.float32"),
        (lambda: Known(np.zeros((1, 3, 16, 16)), MASK), "must be a tensor, got ndarray"),
        (lambda: 3, "known must be Known(image, mask), got 3"),
    ],
)
def test_known_pixels_of_a_wrong_kind_are_refused(base_stage, known, words):
    assert words in line(lambda: base_stage.run([0], run=Run(hooks=Hooks(known=known()))))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3,), "seeds must be a list of whole numbers, got 3"),
        (([0], {"labels": "cat"}), "inputs must be Inputs({...}), got dict"),
        (([0], Inputs(), None, 3), "run must be Run(...), got 3"),
    ],
)
def test_a_stage_run_in_a_wrong_way_gets_one_line(base_stage, arguments, words):
    assert words in line(lambda: base_stage.run(*arguments))
    assert "tiles must be Tiles(tile_px) or None, got 32" in line(lambda: Run(tiles=32))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: CascadePipeline(3), "stages must be a StageChain"),
        (lambda p: CascadePipeline.from_stages([3]), "must be a mapping from names to stages"),
        (lambda p: CascadePipeline.from_stages({"a": 3}), "stage 'a' must be a Stage"),
        (lambda p: p.replace_stage("base", 3), "stage must be a Stage"),
        (lambda p: p.with_sampling({"steps": 3}), "overrides must be Overrides({...}), got dict"),
        (lambda p: p.with_sampling(stps=3), "unknown argument 'stps': did you mean 'steps'"),
        (lambda p: p.stages[0], "no stage 0 in this pipeline: known: base, up"),
        (lambda p: p.to("nonsense"), "device 'nonsense' cannot be used here"),
        (lambda p: p.to(torch.int8), "dtype must be torch.float32, torch.bfloat16 or"),
        (lambda p: p.save_pretrained(3), "save_directory must be a folder, got 3"),
        (lambda p: p.save_pretrained("x", dtype="bf16"), "got 'bf16'"),
        (lambda p: p.save_pretrained("x", variant="fp16"), "no argument 'variant': use dtype"),
        (lambda p: p.save_pretrained("x", push_to_hub=True, foo=1), "unknown argument 'foo'"),
        (lambda p: p.push_to_hub("me/mine", foo=1), "unknown argument 'foo'"),
        (lambda p: p.push_to_hub(None), "repo_id must be the name of a repository"),
        (lambda p: p.enable_model_cpu_offload(device="cudda"), "device 'cudda' cannot be used"),
        (lambda p: p.enable_model_cpu_offload(gpu_id="a"), "gpu_id must be a whole number"),
    ],
)
def test_a_pipeline_is_not_made_changed_or_saved_by_wrong_arguments(pipeline, call, words):
    assert words in line(lambda: call(pipeline))


# ---- attributes of other pipelines --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scheduler", "use sampler in a call, or with_sampling for another default"),
        ("unet", "the parts of a stage are in pipeline.stages[name]"),
        ("_interrupt", "raise an exception in the callback"),
        ("schedular", "has no attribute 'schedular'"),
    ],
)
def test_attributes_without_effect_are_neither_set_nor_read(pipeline, name, words):
    assert words in line(lambda: setattr(pipeline, name, 3))
    assert words in line(lambda: getattr(pipeline, name))
    assert not hasattr(pipeline, name)


@pytest.mark.parametrize(
    "name",
    [
        "half",
        "cuda",
        "enable_attention_slicing",
        "enable_vae_slicing",
        "enable_vae_tiling",
        "enable_xformers_memory_efficient_attention",
        "enable_sequential_cpu_offload",
        "enable_group_offload",
        "load_lora_weights",
    ],
)
def test_methods_without_effect_are_refused(pipeline, name):
    assert f"a CascadePipeline has no {name}: " in line(lambda: getattr(pipeline, name)())


def test_a_method_that_is_spelt_wrong_is_refused_with_the_nearest(pipeline):
    assert "did you mean 'upscale'" in line(lambda: pipeline.upscal)


def test_suggestions_are_names_that_can_be_used(pipeline):
    suggestions = line(lambda: pipeline.set_attention_slices).partition(": ")[2]
    assert "attention_slic" not in suggestions


def test_an_attribute_that_can_only_be_read_is_not_called_missing(pipeline):
    words = "labels of a CascadePipeline cannot be set; only stages can."
    assert line(lambda: setattr(pipeline, "labels", 3)) == words


# ---- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtpye": torch.float32}, "unknown argument 'dtpye': did you mean 'dtype'"),
        ({"dtype": "bfloat16"}, "dtype must be torch.float32, torch.bfloat16 or torch.float16"),
        ({"dtype": torch.int8}, "got torch.int8"),
        ({"dtype": torch.float32, "torch_dtype": torch.float16}, "differ; give dtype alone"),
        ({"device_map": "balanced"}, "device_map must be one device such as 'cpu' or 'cuda:1'"),
        ({"device_map": {"stages": "cpu"}}, "got dict; to share a small device use"),
        ({"device_map": "nonsense"}, "device 'nonsense' cannot be used here"),
        ({"device": "cuda"}, "no argument 'device': use device_map, or .to(device)"),
        ({"variant": "fp16"}, "there is one set of weights; use dtype"),
        ({"subfolder": "x"}, "name the folder of the pipeline itself"),
        ({"revision": "main"}, "revision is for pipelines of the Hub, but"),
        ({"cache_dir": "x"}, "cache_dir is for pipelines of the Hub, but"),
        ({"token": "x"}, "token is for pipelines of the Hub, but"),
        ({"force_download": True}, "force_download is for pipelines of the Hub, but"),
        ({"local_files_only": "yes"}, "local_files_only must be True or False, got 'yes'"),
        ({"use_safetensors": False}, "weights are read from safetensors only"),
        ({"trust_remote_code": True}, "no code of the folder is run"),
        ({"safety_checker": None}, "no argument 'safety_checker': there is none"),
        ({"scheduler": 3}, "use sampler in a call, or with_sampling"),
    ],
)
def test_options_of_loading_without_effect_are_refused(saved, options, words):
    assert words in line(lambda: CascadePipeline.from_pretrained(saved, **options))


def test_options_of_loading_that_hold_are_taken(saved, pipeline):
    plain = pipeline(seed=0, output_type="pt").images
    for options in (
        {"local_files_only": True, "use_safetensors": True, "revision": None},
        {"device_map": "cpu"},
        {"device_map": torch.device("cpu"), "dtype": torch.float32},
    ):
        loaded = CascadePipeline.from_pretrained(saved, **options)
        assert loaded(seed=0, output_type="pt").images.equal(plain)


def test_options_of_the_hub_reach_it(monkeypatch, saved):
    taken = {}

    def download(repo_id, allow_patterns, **options):
        taken.update(options, repo_id=repo_id)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    options = {"revision": "v1", "token": "t", "cache_dir": "c", "local_files_only": True}
    CascadePipeline.from_pretrained("me/mine", **options)
    assert taken == {**options, "repo_id": "me/mine"}


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_weights_in_bfloat16_give_floats_near_those_of_float32(saved, pipeline, name):
    half = CascadePipeline.from_pretrained(saved, **{name: torch.bfloat16})
    assert {each.dtype for each in half.stages.parameters()} == {torch.bfloat16}
    images = half(num_images=2, seed=0, output_type="pt").images
    plain = pipeline(num_images=2, seed=0, output_type="pt", precision="fp32").images
    assert images.dtype == torch.float32
    assert (images - plain).abs().mean() < 0.05
    assert "needs weights in float32 or torch.float32" in line(lambda: half(precision="fp32"))


def test_weights_in_float16_are_refused_on_the_cpu(saved):
    half = CascadePipeline.from_pretrained(saved, dtype=torch.float16)
    words = "float16 are about a hundred times slower on the CPU"
    assert words in line(half)
    assert words in line(lambda: half.upscale(RGB))
    assert half.to(torch.bfloat16)(seed=0).seeds == [0]


def test_a_chain_that_names_a_stage_twice_is_refused(saved):
    (saved / "stages" / "chain.json").write_text('{"stages": ["base", "up", "up"]}')
    words = "names a stage twice: base, up, up"
    assert words in line(lambda: StageChain.from_pretrained(saved / "stages"))


# ---- devices ------------------------------------------------------------------------------------


def test_offloading_without_an_accelerator_is_refused(pipeline, monkeypatch):
    monkeypatch.setattr("cascade.devices.best_device", lambda: torch.device("cpu"))
    words = "offloading needs an accelerator, and there is none"
    assert words in line(pipeline.enable_model_cpu_offload)
    assert words in line(lambda: pipeline.enable_model_cpu_offload(device="cpu"))


def test_offloading_places_one_stage_at_a_time(pipeline, monkeypatch):
    moves = []
    names = {id(stage.network): name for name, stage in pipeline.stages.items()}
    plain = torch.nn.Module.to

    def to(self, device):
        moves.append((names[id(self.network)], str(device)))
        return plain(self, "cpu")

    expected = pipeline(seed=0, output_type="pt").images
    large = pipeline.upscale(RGB)
    monkeypatch.setattr("cascade.staged_pipeline.offload_device", lambda *a: torch.device("cuda"))
    pipeline.enable_model_cpu_offload()
    monkeypatch.setattr("cascade.stage.Stage.to", to)
    assert pipeline(seed=0, output_type="pt").images.equal(expected)
    assert moves == [("base", "cuda"), ("base", "cpu"), ("up", "cuda"), ("up", "cpu")]
    moves.clear()
    assert pipeline.upscale(RGB).tobytes() == large.tobytes()
    assert moves == [("up", "cuda"), ("up", "cpu")]
    moves.clear()
    pipeline.to("cpu")
    pipeline(seed=0)
    assert moves == []


def test_a_stage_goes_back_after_an_error(base_stage, monkeypatch):
    moves = []
    monkeypatch.setattr("cascade.stage.Stage.to", lambda self, device: moves.append(str(device)))
    base_stage.computing_device = torch.device("cuda")
    with pytest.raises(KeyError), base_stage.placed():
        raise KeyError
    assert moves == ["cuda", "cpu"]


# ---- samplers as objects ------------------------------------------------------------------------


def test_a_scheduler_of_diffusers_is_taken_as_its_name_and_what_it_changes(pipeline):
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, use_karras_sigmas=True)
    result = pipeline(seed=0, output_type="pt", steps=12, sampler=scheduler)
    named = {
        "sampler": "DPMSolverMultistepScheduler",
        "config": {"solver_order": 3, "use_karras_sigmas": True},
    }
    assert named.items() <= result.settings["base"].items()
    again = pipeline(seed=0, output_type="pt", steps=12, **named)
    assert result.images.equal(again.images)
    plain = pipeline(seed=0, output_type="pt", steps=12, sampler=type(scheduler))
    assert not result.images.equal(plain.images)


def test_a_scheduler_that_does_not_fit_is_refused_before_the_first_call(pipeline):
    steps = []
    for scheduler in (diffusers.DDIMInverseScheduler, diffusers.HeunDiscreteScheduler()):
        words = line(
            lambda scheduler=scheduler: pipeline(
                steps=5, sampler=scheduler, callback_on_step_end=lambda *at: steps.append(at)
            )
        )
        assert words.startswith("diffusers' "), words
    assert not steps


def test_a_scheduler_is_saved_by_name(pipeline, tmp_path):
    scheduler = diffusers.UniPCMultistepScheduler(solver_order=3)
    pipeline.with_sampling(sampler=scheduler).save_pretrained(tmp_path / "saved")
    sampling = CascadePipeline.from_pretrained(tmp_path / "saved").stages["up"].sampling
    assert sampling.sampler == "UniPCMultistepScheduler"
    assert sampling.options == {"config": {"solver_order": 3}}


def test_a_scheduler_with_a_noise_schedule_of_its_own_is_refused(pipeline):
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear")
    words = "'beta_schedule' of DDIMScheduler follows from the stage"
    assert words in line(lambda: pipeline(sampler=scheduler))
    words = "'beta_end' of a scheduler follows from the stage"
    assert words in line(lambda: pipeline(sampler="unipc", config={"beta_end": 0.1}))


@pytest.mark.parametrize("config", [{"solver_order": 3}, {"base": {"solver_order": 3}}])
def test_a_mapping_of_options_is_one_value_unless_its_keys_are_stages(pipeline, config):
    result = pipeline(sampler="unipc", config=config)
    assert result.settings["base"]["config"] == {"solver_order": 3}
    assert ("config" in result.settings["up"]) == ("base" not in config)

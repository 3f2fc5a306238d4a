"""CascadePipeline: stages in a chain, from noise or an input image to the last stage's size.

Shapes: B images, C channels, H and W pixels of results, h and w pixels of input images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsIndex, overload

import torch

from cascade.arguments import check_kind, flag
from cascade.call import Call, CascadeOutput, StepEnd, check_step_end
from cascade.call_arguments import (
    CallRequest,
    as_outputs,
    check_call_arguments,
    read_call,
)
from cascade.call_inputs import completed_inputs, cut_texts
from cascade.chain import StageChain
from cascade.chain_settings import sampling_of
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import LabelsLike, LabelVocabulary
from cascade.conditioning.text import PromptLike
from cascade.diffusion.noise import GeneratorLike
from cascade.edit_call import OnRemark, edit
from cascade.imaging.exchange import OutputType, PictureLike, StartLike
from cascade.imaging.rasters.raster import Raster
from cascade.picture_calls import colourise, restore, upscale
from cascade.restoration.holes import MaskLike
from cascade.restoration.subject import EditedLike
from cascade.sampling.overrides import Overrides
from cascade.sampling.walk import Progress
from cascade.stage import Stage
from cascade.staged_pipeline import StagedPipeline
from cascade.text.cut_reports import report_cuts


class CascadePipeline(StagedPipeline):
    """Stages in a chain, the first of which starts from noise or from an input image.

    Args:
        stages: the chain of stages; `CascadePipeline.from_stages` makes one from a dictionary.

    Raises:
        ContractError: if `stages` is no `StageChain`.
    """

    @classmethod
    def from_stages(cls, stages: Mapping[str, Stage]) -> CascadePipeline:
        """Chain named stages, first stage first.

        Raises:
            ContractError: if the stages do not join.
        """
        return cls(StageChain(stages))

    @property
    def labels(self) -> LabelVocabulary | None:
        """The class names of the first class-conditional stage; None if there is no such stage."""
        conditions = (each for _, stage in self.stages.items() for each in stage.conditions)
        classes = next((each.classes for each in conditions if each.classes), None)
        return None if classes is None else LabelVocabulary(classes)

    def with_sampling(self, overrides: Overrides | None = None, **settings: Any) -> CascadePipeline:
        """Return a pipeline that shares the weights and samples with changed settings.

        Args:
            overrides: changes by stage name, or under `all`.
            settings: sampling settings as in a call, which take precedence.

        Raises:
            ContractError: if the changes do not fit the stages.
        """
        check_call_arguments(self.stages, settings, ())
        names = self.stages.names
        overrides = Overrides() if overrides is None else overrides
        check_kind("overrides", overrides, Overrides, "Overrides({...})")
        later = Overrides.per_stage(names, names, **settings)
        return CascadePipeline(self.stages.with_sampling(overrides.with_later(later)))

    # ---- sampling -------------------------------------------------------------------------------

    @overload
    def __call__(
        self,
        prompt: PromptLike | None = None,
        *,
        negative_prompt: PromptLike | None = None,
        num_images: SupportsIndex | None = None,
        labels: LabelsLike | None = None,
        image: StartLike | Raster | Sequence[Raster] | None = None,
        like: StartLike | None = None,
        seed: SupportsIndex | None = None,
        seeds: Sequence[int] | None = None,
        generator: GeneratorLike | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepEnd | None = None,
        return_dict: Literal[True] = True,
        **options: Any,
    ) -> CascadeOutput: ...

    @overload
    def __call__(
        self, prompt: PromptLike | None = None, *, return_dict: Literal[False], **arguments: Any
    ) -> tuple[Any]: ...

    @torch.no_grad()
    def __call__(
        self,
        prompt: PromptLike | None = None,
        *,
        negative_prompt: PromptLike | None = None,
        num_images: SupportsIndex | None = None,
        labels: LabelsLike | None = None,
        image: StartLike | Raster | Sequence[Raster] | None = None,
        like: StartLike | None = None,
        seed: SupportsIndex | None = None,
        seeds: Sequence[int] | None = None,
        generator: GeneratorLike | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: StepEnd | None = None,
        return_dict: bool = True,
        **options: Any,
    ) -> CascadeOutput | tuple[Any]:
        """Make images.

        Args:
            prompt: what to draw: a text for all images, or a list with one per image; an empty text
                leaves it open.
            negative_prompt: from what guidance pushes away, in the same forms; default: from no
                prompt. It needs guidance other than 1.
            num_images: number of images to make; default: one per entry of `prompt`, `labels` or
                `like`. With `image` it is ignored, because input images make one result each.
            labels: for all images, or one per image: `{"class": "cat-face"}` or `"cat-face,noto"`.
                Missing fields are drawn from each image's seed, or left open if there is a prompt,
                an input image or a picture to vary, which may show something else.
            image: input images to start from, all of one size: PIL images; a tensor (B, C, h, w)
                in [-1, 1]; or an array (B, h, w, C) of 8 or 16 bits, or of floats in [0, 1]. For a
                stage of bands, whole numbers are measured ones in the unit of its range, and may
                also be int16 or `Raster`s.
            like: a picture to vary, or one per image, as PIL images, a tensor or an array: the run
                starts at the stage that takes an image embedding, with the embedding of the
                picture's middle square. `inputs={"like": …}` takes embeddings (B, E, 1, 1)
                instead.
            seed: whole number from 0 for the first image; the others count up; default: random.
            seeds: one whole number per image, instead of `seed`.
            generator: a generator whose `initial_seed()` takes the place of `seed`, or a list of
                one per image. Its state is neither used nor changed.
            output_type: `pil`, which is for pixels of 1 or 3 channels, `pt` or `np`; see
                `CascadeOutput`.
            callback_on_step_end: called as `callback(pipeline, step, timestep, kwargs)` after every
                step; may return a dictionary with a new `x_t`. `kwargs["seeds"]` are the seeds of
                the current batch, and `pipeline.current_stage` is the name of its stage.
            return_dict: whether to return a `CascadeOutput`, or a tuple of its images alone.
            options: fields of `cascade.call.CallOptions` such as `keep_intermediates`, `batch_size`
                or `precision`, and sampling settings such as `steps`, `sampler`, `guidance`,
                `augmentation_level` or `eta`: one value for all stages, a sequence in their order,
                or a mapping by stage name. Default: the stage's saved settings.

        Raises:
            CascadeError: if the encoder of a prompt or of `like` cannot be found.
            ContractError: if an argument does not fit the stages.
            DataError: if PIL holds an image in a mode whose range is not known.
        """
        return_dict = flag("return_dict", return_dict)
        check_step_end(callback_on_step_end)
        request = self.read_call(
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_images=num_images,
            labels=labels,
            image=image,
            like=like,
            seed=seed,
            seeds=seeds,
            generator=generator,
            output_type=output_type,
            **options,
        )
        run, inputs, drawn = request.run, request.inputs, request.seeds
        images = Call(self, request.options, inputs, drawn, callback_on_step_end).run(run)
        outputs = as_outputs(run, images, output_type)
        result = outputs.pop(run.names[-1])
        if not return_dict:
            return (result,)
        return CascadeOutput(
            images=result,
            seeds=drawn,
            prompts=inputs.get("prompt") or ["" for _ in drawn],
            labels=inputs.get("labels") or [{} for _ in drawn],
            settings=sampling_of(run.items()),
            intermediates=outputs,
        )

    def read_call(self, **arguments: Any) -> CallRequest:
        """Check the arguments of a call, and warn about prompts that the text encoder cannot read.

        Later calls do not warn about them again.

        Args:
            arguments: those of a call that decide its images.

        Returns:
            The stages that run, with their settings, and the inputs and seeds of all images.

        Raises:
            CascadeError: if the encoder of a prompt or of `like` cannot be found.
            ContractError: if an argument does not fit the stages.
            DataError: if PIL holds an image in a mode whose range is not known.
        """
        request = read_call(self.stages, arguments)
        self._report_cuts(request.run, request.inputs)
        return request

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Check prompts before any work, and warn about those that the text encoder cannot read.

        Later calls do not warn about them again.

        Raises:
            CascadeError: if the text encoder cannot be found.
            ContractError: if the pipeline takes no prompt, or a prompt is not a text.
        """
        seeds = list(range(len(prompts)))
        arguments = {"prompt": prompts}
        self._report_cuts(self.stages, completed_inputs(self.stages, {}, arguments, seeds))

    def _report_cuts(self, run: StageChain, inputs: Inputs) -> None:
        """Warn about each text that does not reach the networks in full, once."""
        cuts = cut_texts(run, inputs)
        report_cuts([cut for text, cut in cuts.items() if text not in self._reported])
        self._reported.update(cuts)

    # ---- pictures of any size -------------------------------------------------------------------

    @torch.no_grad()
    def edit(
        self,
        image: EditedLike,
        mask: MaskLike | None = None,
        prompt: PromptLike | None = None,
        *,
        callback_on_step_end: StepEnd | None = None,
        progress: Progress | None = None,
        on_remark: OnRemark | None = None,
        **options: Any,
    ) -> CascadeOutput:
        """Repaint a part of a picture of any size; everything else keeps its exact values.

        Args:
            image: one picture: a PIL image, a `Picture`, a tensor (C, h, w) in [-1, 1], or an array
                (h, w, C) of 8 or 16 bits or of floats in [0, 1].
            mask: white where to repaint: a PIL image or a `Picture` of the same size, or a bool or
                uint8 array or tensor (h, w); default: the transparent pixels of the picture, and
                with a strength below 1 the whole picture if there are none.
            prompt: what to draw, for pipelines that take text, as in a call.
            callback_on_step_end: as in a call.
            progress: called as `progress(done, total)` from time to time, in units of work.
            on_remark: called with what to know about the mask, such as that it is empty; default:
                a warning in the log.
            options: `uncrop`, pixels to add at left, top, right and bottom; fields of
                `cascade.restoration.editing.Editing`, such as `strength`; `negative_prompt`,
                `num_images`, `labels`, `seed`, `seeds`, `generator`, fields of
                `cascade.call.CallOptions` other than `start_at` and `stop_at`, and sampling
                settings, as in a call. Labels that are left out stay open.

        Returns:
            As of a call, with images of the same kind as `image`: a list of PIL images or
            `Picture`s, or a tensor or array with one more dimension. Intermediates are of the
            window that the stages see, as PIL images, or tensors unless they have 1 or 3 channels.

        Raises:
            CascadeError: if the encoder of a prompt cannot be found.
            ContractError: if an argument does not fit the stages.
            DataError: if PIL holds the picture or the mask in a mode whose range is not known.
        """
        return edit(
            self,
            image,
            mask,
            {"prompt": prompt, **options},
            on_inputs=self._report_cuts,
            on_remark=on_remark,
            callback=callback_on_step_end,
            progress=progress,
        )

    def upscale(
        self,
        image: PictureLike,
        scale: float | None = None,
        *,
        progress: Progress | None = None,
        generator: GeneratorLike | None = None,
        **settings: Any,
    ) -> Any:
        """Upscale pictures of any size with the upsamplers, in tiles without seams.

        Args:
            image: a PIL image, which keeps transparency and metadata; a `Picture`, which also keeps
                16 bits; a `Raster` of bands; a tensor (C, h, w) or (B, C, h, w) in [-1, 1]; an
                array (h, w), (h, w, C) or (B, h, w, C) of 8 or 16 bits or of floats in [0, 1]; or a
                list of these. For stages of bands, whole numbers in arrays are measured ones in
                the unit of their range, and may be int16.
            scale: factor for both sides, above 1 and at most 64; default: the factor of all
                upsamplers together.
            progress: called as `progress(done, total)` from time to time, in units of work.
            generator: a generator whose `initial_seed()` takes the place of `seed`, or a list of
                one per picture. Its state is neither used nor changed.
            settings: `seed`, `tile_px`, `consistent`, `precision`, see
                `cascade.restoration.upscaling.Upscaling`, and sampling settings as in a call.
                `seeds`, a number counted up from `seed`, gives the mean of that many results, and
                with at least 2 of them, `return_std=True` the standard deviation over them too.

        Returns:
            The results, of the same type as `image`. With `return_std`, a pair of them and the
            standard deviations in units of their numbers: arrays for PIL images and arrays,
            tensors for tensors and `Picture`s, a `Raster` for a `Raster`. If the pipeline keeps
            what `evaluate --apply-doubt` measured for this number of seeds with these settings,
            the expected errors take the place of the deviations.

        Raises:
            ContractError: if an argument does not fit the stages.
            DataError: if PIL holds a picture in a mode whose range is not known.
            OutputError: if a very large picture needs more temporary space than the disk has.
        """
        return upscale(self.stages, image, settings | {"scale": scale}, progress, generator)

    def colourise(
        self,
        image: PictureLike,
        *,
        progress: Progress | None = None,
        generator: GeneratorLike | None = None,
        **settings: Any,
    ) -> Any:
        """Colour pictures of any size with the stage that takes grey, keeping their luminance.

        The size stays: if upsamplers follow that stage, `upscale` the result to use them too.

        Args:
            image: grey or colour pictures, of the same types as for `upscale` except `Raster`s.
            progress: called as `progress(done, total)` from time to time, in units of work.
            generator: one or one per picture, as for `upscale`.
            settings: `seed`, `hints` (a PIL image or a `Picture`), `precision`, see
                `cascade.restoration.colouring.Colouring`, and sampling settings as in a call;
                `seeds` and `return_std` as for `upscale`.

        Returns:
            The results, of the same type as `image`; with `return_std` a pair, as for `upscale`.

        Raises:
            CascadeError: as `upscale`.
        """
        return colourise(self.stages, image, settings, progress, generator)

    def restore(
        self,
        image: PictureLike,
        *,
        progress: Progress | None = None,
        generator: GeneratorLike | None = None,
        **settings: Any,
    ) -> Any:
        """Make the other image of a pair with a stage that was trained on pairs of one size.

        The size stays: if upsamplers follow that stage, `upscale` the result to use them too.

        Args:
            image: pictures such as the inputs of the pairs, of the same types as for `upscale`.
            progress: called as `progress(done, total)` from time to time, in units of work.
            generator: one or one per picture, as for `upscale`.
            settings: `seed`, `tile_px`, `precision`, see
                `cascade.restoration.restoring.Restoration`; sampling settings as in a call; and
                `seeds` and `return_std` as for `upscale`.

        Returns:
            The results, of the same type as `image`; with `return_std` a pair, as for `upscale`.

        Raises:
            CascadeError: as `upscale`.
        """
        return restore(self.stages, image, settings, progress, generator)

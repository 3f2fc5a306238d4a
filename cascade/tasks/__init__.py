"""The tasks of pipelines: generating, upscaling, colouring and editing pictures."""

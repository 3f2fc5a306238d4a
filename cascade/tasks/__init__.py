"""The tasks of pipelines: generating, upscaling and colouring pictures."""

"""Reading and writing stages and pipelines: whole or not at all, and nothing unpickled."""

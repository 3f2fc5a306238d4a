"""Reads and writes stages and pipelines: whole or not at all, and without pickle."""

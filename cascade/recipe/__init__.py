"""Recipes: the readable YAML files that describe a stage or a pipeline."""

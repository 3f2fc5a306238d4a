"""From checked recipes to the stages, trainers and pipelines that they describe."""

"""Lets launchers that start modules run `python -m cascade.cli`."""

from cascade.cli.main import run

if __name__ == "__main__":
    run()

"""`python -m cascade.cli`, for launchers that start modules."""

from cascade.cli.main import run

if __name__ == "__main__":
    run()

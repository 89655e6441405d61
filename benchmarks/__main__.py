"""The benchmarks as a command: `python -m benchmarks`, which `make bench` calls."""

import tyro

from benchmarks.bench import main

if __name__ == "__main__":
    tyro.cli(main)

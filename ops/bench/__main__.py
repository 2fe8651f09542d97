"""Lets `python -m ops.bench` run; worker processes import it too, so it holds nothing else."""

from __future__ import annotations

from ops.bench.command import main

if __name__ == "__main__":
    main()

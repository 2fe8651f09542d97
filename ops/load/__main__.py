"""Lets `python -m ops.load` run."""

from __future__ import annotations

from ops.load.command import load

if __name__ == "__main__":
    load()

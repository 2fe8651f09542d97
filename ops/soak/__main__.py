"""Lets `python -m ops.soak` run."""

from __future__ import annotations

from ops.soak.command import soak

if __name__ == "__main__":
    soak()

"""The installed `mongosplit` command: the producer's verbs, with embedded servers behind them."""

from __future__ import annotations

import sys

from ops.dev import dev, embedded_unless_given, forget_stale
from producer.cli import mongosplit, run

mongosplit.add_command(dev)


def main() -> None:
    """Carry out one command line and exit with its code."""
    forget_stale()
    sys.exit(run(embedded_unless_given))


if __name__ == "__main__":
    main()

"""`make docs`: the documents that are derived from the code."""

from __future__ import annotations

from pathlib import Path

from mongosplit import coverage, series, users

DOCS = Path(__file__).parents[1] / "docs"


def users_mapping() -> str:
    """The page on every field of the shipped migration."""
    return (
        "# The users mapping\n\n"
        "Every field of the shipped migration, from `mongosplit/users.py` by `make docs`.\n"
        "Missing stays missing and null stays null, unless the lens says otherwise. What is not\n"
        "listed here stays in the source; `mongosplit coverage users` names it with its count.\n\n"
        + coverage.mapping_table(users.migration)
    )


def metrics() -> str:
    """The page on every series that Prometheus may ask for."""
    return (
        "# Metrics\n\n"
        "Every series, from `mongosplit/series.py` by `make docs`. How they are exposed is told\n"
        "in [deploying](deploying.md#metrics), what to do about an alert in\n"
        "[operating](operating.md#what-if).\n\n"
        "The producer's are read off the ledger at each scrape, for each unfinished run and the\n"
        "newest one. A worker counts what its processes do, from its start; Prometheus stores a\n"
        "counter with `_total` behind its name, a histogram as `_bucket`, `_sum` and `_count`.\n"
        "No label is the number of a chunk or the id of a document.\n\n" + series.table()
    )


PAGES = {"users-mapping.md": users_mapping, "metrics.md": metrics}


def main() -> None:
    """Write every derived page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()

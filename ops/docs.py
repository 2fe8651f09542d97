"""`make docs`: the documents that are derived from the code."""

from __future__ import annotations

from pathlib import Path

from mongosplit import coverage, users

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


PAGES = {"users-mapping.md": users_mapping}


def main() -> None:
    """Write every derived page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()

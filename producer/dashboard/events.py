"""What a browser is sent of a look, as a server-sent event: all of it, or what has changed."""

from __future__ import annotations

import json
from typing import Any

from producer.dashboard import cells as chunk_cells
from producer.dashboard.facts import Look
from producer.dashboard.watch import Seen


def event(seen: Seen, before: Look) -> str:
    """A look as a server-sent event, for a browser that has had `before`."""
    if seen.look is None:
        told = {"sentence": seen.trouble, "hint": seen.hint}
        return f"event: trouble\ndata: {json.dumps(told)}\n\n"
    return f"event: look\ndata: {json.dumps(difference(before, seen.look))}\n\n"


def difference(before: Look, look: Look) -> dict[str, Any]:
    """The facts, and of map and curve all or what has changed."""
    same = before.run == look.run and bool(before.cells)
    changed = chunk_cells.changes(before.cells, look.cells) if same else None
    told: dict[str, Any] = {"facts": look.facts}
    if changed is None:
        told["cells"] = chunk_cells.run_length(look.cells)
        samples = look.samples
    else:
        told["changes"] = changed
        last = before.samples[-1].at if before.samples else 0
        samples = tuple(sample for sample in look.samples if sample.at >= last)
    told["samples"] = [sample.to_json() for sample in samples]
    return told

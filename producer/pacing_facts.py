"""What is said of the pace: the limit that holds, who set it, and what holds the run back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.text import Text

from mongosplit.ledger import paces
from mongosplit.model import Run
from mongosplit.verdict import STALE_SECONDS, Verdict
from producer import console


def facts(run: Run, moment: datetime) -> dict[str, Any]:
    """The pace of a run at a moment in UTC, as `status` shows it."""
    limit = paces.limit_of(run.pace, moment)
    health = _health(run, moment)
    return {
        "rate_limit": limit.rate,
        "set_by": limit.actor or None,
        "until": limit.until,
        "schedule": (run.pace.get("schedule") or {}).get("schedule"),
        "zone": (run.pace.get("schedule") or {}).get("zone"),
        "per_worker": run.pace.get("per_worker"),
        "signals": run.options.get("throttle", "off"),
        "allowed": health["allowed"],
        "held_back_by": health["signal"],
        "limit": limit.sentence,
        "reason": health["reason"] or limit.sentence,
    }


def _health(run: Run, moment: datetime) -> dict[str, Any]:
    nothing = {"allowed": None, "signal": None, "reason": ""}
    if run.options.get("throttle", "off") == "off" or run.health is None:
        return nothing
    verdict = Verdict.from_document(run.health)
    if verdict.stale(moment, seconds=10 * STALE_SECONDS):
        # Nobody drives the run, so nobody measures.
        return nothing
    if not verdict.signal and not verdict.stop:
        return nothing
    allowed = 0.0 if verdict.stop else verdict.allowed
    return {"allowed": allowed, "signal": verdict.signal or "health", "reason": verdict.reason}


def sentence(pace: dict[str, Any]) -> str:
    """The pace in one line: what is allowed now, and why it is less than the limit."""
    if pace["held_back_by"]:
        slowed = f"{pace['allowed']:,.0f} documents/s: " if pace["allowed"] else ""
        return f"{slowed}{pace['reason']}"
    return str(pace["limit"])


def show(run: str, pace: dict[str, Any]) -> None:
    """All of it, for the verb."""
    console.data.print(Text(f"{run}: {sentence(pace)}", style="bold"))
    console.data.print(f"limit        {pace['limit']}")
    if pace["schedule"]:
        console.data.print(f"schedule     {pace['schedule']} ({pace['zone']})")
    if pace["per_worker"] not in (None, "0"):
        console.data.print(f"per worker   {pace['per_worker']} chunks, by Celery")
    console.data.print(f"signals      {pace['signals']}")

"""The command line of the stress test: one seed on servers of its own, or several in sequence."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
from bson import decode_file_iter
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS

from mongosplit.errors import Failed, MongosplitError
from mongosplit.selection import parse
from ops.load import journal as journals
from ops.soak import evidence
from ops.soak.acting import Acting
from ops.soak.calm import come_to_rest
from ops.soak.chaos import draw_actions
from ops.soak.scene import QUEUES, RUN, SOURCE, Scene, Shape, prepared
from producer import dispatch
from producer.console import data, say
from producer.leash import leashed
from producer.options import report_error

DIFFERENT = 4
SHOWN = 40
FIRST_SECONDS = 60.0
QUEUES_USED = ("migrate", "verify", "sync", "rollback")


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides what is done when.")
@click.option("--seeds", "many", help="Several in sequence: 1-30, or 1,4,7-9.")
@click.option("--nodes", type=click.Choice(["1", "3"]), default="1", show_default=True)
@click.option("--users", type=click.IntRange(1), default=4000, show_default=True)
@click.option("--chunk-size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--rate", type=click.FloatRange(1), default=200.0, show_default=True)
@click.option("--calm", is_flag=True, help="No chaos: only the application and the players.")
@click.option("--keep", is_flag=True, help="Leave the folder with logs and data behind.")
def soak(  # noqa: PLR0913, PLR0917 - one argument for each flag
    seconds: float,
    seed: int,
    many: str | None,
    nodes: str,
    users: int,
    chunk_size: int,
    rate: float,
    calm: bool,
    keep: bool,
) -> None:
    """Kill, stop and wipe what splits `users` while they are written, then compare every byte.

    Exit code 4 when something differs, 1 when the run does not come to rest.
    """
    shape = Shape(seed, seconds, int(nodes), users, chunk_size, rate)
    try:
        if many is None:
            sys.exit(_one(shape, calm=calm, keep=keep))
        sys.exit(_several(sorted(parse(many).numbers())))
    except MongosplitError as error:
        sys.exit(report_error(error))


def _several(seeds: list[int]) -> int:
    """Each seed in a process of its own; returns the worst exit code."""
    given = sys.argv[1:]
    at = next(n for n, word in enumerate(given) if word.startswith("--seeds"))
    rest = given[:at] + given[at + (1 if "=" in given[at] else 2) :]
    worst = 0
    for seed in seeds:
        line = [sys.executable, "-m", "ops.soak", *rest, "--seed", str(seed)]
        worst = max(worst, subprocess.run(leashed(line), check=False).returncode)
    return worst


def _one(shape: Shape, *, calm: bool, keep: bool) -> int:
    with ExitStack() as closing:
        if keep:
            folder = Path(tempfile.mkdtemp(prefix="mongosplit-soak-"))
            say(f"everything is left in {folder}")
        else:
            made = tempfile.TemporaryDirectory(prefix="mongosplit-soak-")
            folder = Path(closing.enter_context(made))
        scene = closing.enter_context(prepared(shape, folder))
        began = time.monotonic()
        acting = Acting(scene)
        found, why = _played(acting, calm=calm)
        _sum_up(acting, found, why, time.monotonic() - began)
    return DIFFERENT if found else 1 if why else 0


def _played(acting: Acting, *, calm: bool) -> tuple[list[str], str]:
    """The whole play; the differences that were found, and why it did not come to rest."""
    scene, shape = acting.scene, acting.scene.shape
    _begin(acting)
    actions = [] if calm else draw_actions(shape.seed, shape.seconds, shape.nodes)
    acting.began = time.monotonic()
    acting.act(actions, shape.seconds)
    acting.end()
    acting.tell("the chaos is over")
    try:
        come_to_rest(acting, remigrate=shape.seed % 2 == 0)
    except Failed as error:
        # What can be compared all the same tells more than the wait.
        return _lost(scene), error.message
    return [*_lost(scene), *evidence.differences(scene.opened(), scene.planted), *_told(scene)], ""


def _begin(acting: Acting) -> None:
    scene = acting.scene
    for name in QUEUES:
        scene.players[name].start()
    deadline = time.monotonic() + FIRST_SECONDS
    while not all(dispatch.somebody_listens(queue) for queue in QUEUES_USED):
        if time.monotonic() > deadline:
            raise Failed(f"not every worker listens after {FIRST_SECONDS:g} s")
        time.sleep(0.2)
    scene.players["application"].start()
    size = str(scene.shape.chunk_size)
    code = scene.verb_to_its_end(
        "start", "users", "--yes", "--detach", "--chunk-size", size, "--wave-size", "8"
    )
    if code:
        raise Failed(f"mongosplit start ended with {code}", hint=scene.said("start"))
    for player in scene.players.values():
        player.start()


def _lost(scene: Scene) -> list[str]:
    return [one.sentence for one in journals.compare(scene.journal, scene.data[SOURCE])]


def _told(scene: Scene) -> list[str]:
    """What the product itself finds: verify and the audit's chain must hold."""
    found = []
    for words in (("verify", "users"), ("history", "--check")):
        if code := scene.verb_to_its_end(*words):
            found.append(f"mongosplit {' '.join(words)} ended with {code}: {scene.said(words[0])}")
    return found


def _sum_up(acting: Acting, found: list[str], why: str, seconds: float) -> None:
    shape, done = acting.scene.shape, acting.done
    for sentence in found[:SHOWN]:
        data.print(sentence, markup=False)
    if why:
        data.print(why, markup=False)
    told: Counter[str] = Counter()
    with acting.scene.journal.open("rb") as file:
        for entry in decode_file_iter(file, DEFAULT_RAW_BSON_OPTIONS):
            told[entry["kind"]] += 1
    copied, undone = _changes(acting.scene)
    facts = {
        "nodes": shape.nodes,
        "writes": told["acknowledged"],
        "kills": done["kill"],
        "stops": done["freeze"],
        "copies": sum(copied.values()),
        "chunks rolled back": undone,
        "re-migrations": sum(copied.values()) - len(copied),
        "wipes": done["wipe"],
        "elections": done["elections"],
        "ended by itself": done["ended by itself"],
        "differences": len(found),
    }
    said = ", ".join(f"{count:,} {name}" for name, count in facts.items())
    state = "not at rest" if why else "DIFFERENT" if found else "right"
    data.print(f"seed {shape.seed}: {state}, {seconds:.0f} s, {said}", markup=False)


def _changes(scene: Scene) -> tuple[Counter[int], int]:
    """How often each chunk was copied, and how often any was rolled back, by the audit."""
    copied: Counter[int] = Counter()
    undone = 0
    for name in ("audit", "outbox"):
        for row in scene.ledger[name].find({"run": RUN, "action": "chunk"}):
            change = row["facts"].get("from"), row["facts"].get("to")
            copied[row["chunk"]] += change == ("pending", "migrated")
            undone += change[1] == "rolled_back" and change[0] != change[1]
    return +copied, undone

"""Owns the customer's legacy `users` collection, made up from a seed, and loads it into MongoDB."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice

import click
from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, PyMongoError
from rich.console import Console
from rich.progress import Progress

from mongosplit.errors import Failed, MongosplitError, UsageError
from ops.seed_hostile import KINDS, ODD_NAMES, PLAIN, Document, Draw, Kind, Planting, add_quirks

__all__ = ["KINDS", "PLAIN", "Kind", "main", "seed", "users", "users_with_kinds"]

# In seconds: 2018-03 the shop opened, 2019-09 it began to write every field, 2026-07 we stop.
OPENED, COMPLETE, CLOSED = 1_519_862_400.0, 1_567_296_000.0, 1_782_864_000.0
EPOCH, SPAN, DAY = datetime(1970, 1, 1), 180e6, 86_400.0


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in text.split())


def _slug(name: str) -> str:
    plain = name.lower().replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    return ".".join(plain.encode("ascii", "ignore").decode().split()) or "gast"


FIRST = _words("Anna Jörg Käthe Uwe Bjørn Zoë Mia Jürgen Günther Renée Tomasz Ali Karl-Heinz")
LAST = _words("Müller Schmidt Schäfer Groß Köhler Yılmaz Nowak Böhm Fuchs von_der_Heide Krüger Höß")
NAMES = [*ODD_NAMES, *(f"{first} {last}" for first in FIRST for last in LAST)]
PEOPLE = [(name, _slug(name)) for name in NAMES]
MAIL = _words("post.example mail.example hofpost.example example.org example.com example.net")
STREETS = _words("Hauptstraße Am_Anger Mühlweg Dorfstraße Lindenallee Gänsemarkt An_der_Brücke")
TOWNS = _words("Berlin Görlitz München Köln Kronach Düsseldorf Bad_Tölz Weißenburg Halle_(Saale)")
DAYS = _words("montag dienstag mittwoch donnerstag freitag samstag sonntag")
HOURS = _words("08:00–18:00 09:00–12:30,_14:00–18:00 07:30–13:00 geschlossen nach_Vereinbarung")
GOODS = _words("Obst Gemüse Blumen Käse Fleisch Honig Eier Brot Öle Wein Kräuter Kunsthandwerk")
SEALS = _words("Bioland Demeter Naturland EU-Bio QS Regionalfenster")
METHODS = _words("ökologisch Freilandhaltung Permakultur konventionell Handarbeit Streuobst")
TRADES = ("farm", "cooperative", "processing", "craft", "other")
FIRMS = _words("Hof_{} {}_&_Söhne_GmbH Gärtnerei_{} {}s_Hofladen_🥕")
Pair = tuple[Document, str]
READER = {"isFullAccount": False, "isAdmin": False, "isVendor": False}
SLOGANS = ("Frisch vom Hof", "Gut Ding will Weile haben", "Natürlich von hier 🌿", "Seit 1894", "")
WELCOME = "Täglich frisch geerntet 🐔, mit Herz verpackt – ein Familienbetrieb der Region. " * 5


def _moment(seconds: float) -> datetime:
    """Return the naive UTC time, in the whole milliseconds that BSON keeps."""
    return EPOCH + timedelta(milliseconds=int(seconds * 1000))


def _births(draw: Draw, count: int) -> Iterator[float]:
    """Yield when each user registered, in seconds: campaigns, lulls and quiet nights."""
    now, mood, run = OPENED, 1.0, 1 + min(count // 400, 200)
    for number in range(count):
        if number % run == 0:
            mood = draw.pick((0.0002, 0.05, 1.0, 3.0)) * SPAN / count
        now -= math.log(1 - draw.random()) * mood
        if now % DAY < DAY / 5 and draw.chance(0.9):
            now += DAY / 5 + draw.below(7200)
        yield min(now, CLOSED)


def _account(draw: Draw, handle: str, email: str, born: float) -> Document:
    password = base64.b64encode(draw.randbytes(40), b"./")[:53].decode()
    part = {"username": handle, "password": f"$2b$10${password}", "isFullAccount": True}
    part |= {"isAdmin": draw.chance(0.001), "isVendor": draw.chance(2 / 7)}
    if draw.chance(0.3):
        part["email"] = email
    if draw.chance(0.8):
        part["lastLogin"] = _moment(born + draw.random() * (CLOSED - born))
    return part


def _kontakt(draw: Draw, name: str, email: str, share: float, born: float) -> Document:
    part: Document = {"name": name, "email": email, "telefon": f"+49 {draw.below(10**10):010d}"}
    part["newslettertype"] = draw.pick(("general", "general", "kunde", "anbieter"))
    part["mailNewsletter"] = subscribes = draw.chance(share)
    part["newsletterConfirmed"] = confirmed = subscribes and draw.chance(0.8)
    if subscribes and not confirmed:
        part["confirmationToken"] = draw.randbytes(20).hex()
        part["tokenExpires"] = _moment(born + DAY)
    elif draw.chance(0.4):
        part["confirmationToken"] = part["tokenExpires"] = None
    part["status"] = draw.pick(("aktiv", "aktiv", "aktiv", "aktiv", "inaktiv", "pending"))
    return part | {"usrID": f"U-{draw.getrandbits(32):08x}"}


def _adresse(draw: Draw, kontakt: Document, adresstyp: str) -> Document:
    part = {"adresstyp": adresstyp, "strasse": draw.pick(STREETS), "ort": draw.pick(TOWNS)}
    part["hausnummer"] = f"{1 + draw.below(180)}{draw.pick(('', '', 'a', ' b'))}"
    part |= {"plz": f"{1000 + draw.below(98000):05d}", "name1": kontakt["name"], "name2": ""}
    part |= {"telefon": kontakt["telefon"], "email": kontakt["email"]}
    return part | {"anrede": draw.pick(("Frau", "Herr", ""))}


def _vendor_profile(draw: Draw, name: str, handle: str, tags: tuple[ObjectId, ...]) -> Document:
    profile: Document = {"unternehmen": draw.pick(FIRMS).format(name)}
    profile["beschreibung"] = f"{', '.join(draw.some(GOODS, 9))}. {WELCOME[: draw.below(420)]}"
    profile |= {"profilBild": f"/bild/{handle}.jpg", "bannerBild": f"/banner/{handle}.webp"}
    profile["oeffnungszeiten"] = {day: draw.pick(HOURS) for day in DAYS}
    profile |= {"kategorien": draw.some(GOODS, 4), "tags": draw.some(tags, 5)}
    profile["products"] = [ObjectId(draw.randbytes(12)) for _ in range(draw.below(9))]
    details = {"founded": 1850 + draw.below(170), "certifications": draw.some(SEALS, 3)}
    details |= {"productionMethods": draw.some(METHODS, 3), "farmSize": f"{draw.below(240)} ha"}
    profile["businessDetails"] = details | {"businessType": draw.pick(TRADES)}
    lonlat = [round(6 + 9 * draw.random(), 6), round(47 + 8 * draw.random(), 6)]
    place = {"coordinates": lonlat, "address": f"{draw.pick(STREETS)} 7, {draw.pick(TOWNS)}"}
    reach = {"deliveryRadius": draw.below(80), "deliveryAreas": draw.some(TOWNS, 3)}
    profile["location"] = place | reach
    seasonal, season = draw.chance(0.4), {"start": 3 + draw.below(4), "end": 8 + draw.below(4)}
    year = {"seasonal": seasonal, "yearRoundOperation": not seasonal, "peakSeason": season}
    profile |= {"operationalInfo": year, "slogan": draw.pick(SLOGANS)}
    profile["website"] = f"https://{handle}.example"
    profile["socialMedia"] = {"facebook": f"fb.example/{handle}", "instagram": f"@{handle}"}
    profile["verifyStatus"] = draw.pick(("unverified", "pending", "verified", "verified"))
    return profile | {"isPubliclyVisible": draw.chance(0.7), "featured": draw.chance(0.05)}


def _trade(draw: Draw, born: float) -> Document:
    status = draw.pick(("preregistered", "trial_active", "trial_expired", "active", "cancelled"))
    part: Document = {"registrationStatus": status}
    if status != "preregistered":
        part |= {"trialStartDate": _moment(born + DAY), "trialEndDate": _moment(born + 31 * DAY)}
    part["isPubliclyVisible"] = draw.chance(0.6)
    if draw.chance(0.3):
        package = {"packageCounts": {"A": draw.below(4)}, "total": draw.below(9999) / 100}
        booking = {"packageData": package, "createdAt": _moment(born + 90)}
        part["pendingBooking"] = booking | {"status": draw.pick(("pending", "completed"))}
    return part


def _clean(count: int, seed: int) -> Iterator[Document]:
    draw = Draw(f"users {seed} {count}")
    servers = [draw.randbytes(5) for _ in range(3)]
    tags = tuple(ObjectId(draw.randbytes(12)) for _ in range(60))
    counter = draw.below(2**24)
    for number, born in enumerate(_births(draw, count)):
        name, slug = draw.pick(PEOPLE)
        handle = f"{slug}{number}-{seed}-{count}"
        email = f"{handle}@{draw.pick(MAIL)}"
        tail = ((counter + number) % 2**24).to_bytes(3)
        user: Document = {"_id": ObjectId(int(born).to_bytes(4) + draw.pick(servers) + tail)}
        full = draw.chance(0.7)
        user |= _account(draw, handle, email, born) if full else READER
        user["kontakt"] = kontakt = _kontakt(draw, name, email, 0.45 if full else 0.95, born)
        used = draw.some(("rechnung", "lieferung"), 2) if full else ()
        user["adressen"] = [_adresse(draw, kontakt, use) for use in used]
        # One in fifty stopped selling and left a profile behind.
        if user["isVendor"] or (full and draw.chance(0.02)):
            user["vendorProfile"] = _vendor_profile(draw, name, handle, tags)
            user |= _trade(draw, born)
        user["registrationDate"] = user["createdAt"] = _moment(born)
        user["updatedAt"] = _moment(born + draw.random() ** 3 * (CLOSED - born))
        user["__v"] = draw.pick((0, 0, 0, 1, 2, 7))
        add_quirks(draw, user, old=born < COMPLETE)
        yield user


def users_with_kinds(count: int, *, seed: int = 7, hostile: float = 0.0) -> Iterator[Pair]:
    """Yield users with the name of their kind, `plain` for those that were not made hostile.

    `hostile` is the share of hostile ones, from 0 to 1, spread evenly over `KINDS`. Raises
    `UsageError` at once when the count or the share is out of range.
    """
    planting = Planting(count, seed, hostile)
    return ((user, planting.plant(number, user)) for number, user in enumerate(_clean(count, seed)))


def users(count: int, *, seed: int = 7, hostile: float = 0.0) -> Iterator[Document]:
    """Yield the documents of `users_with_kinds`: the same count and seed give the same users."""
    return (user for user, _ in users_with_kinds(count, seed=seed, hostile=hostile))


def seed(
    collection: Collection[Document],
    count: int,
    *,
    seed: int = 7,
    hostile: float = 0.0,
    batch: int = 2000,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Insert that many users, `batch` documents at a time, and return how many of each kind.

    `progress` is told after each batch how many are in. Raises `Failed` when the collection
    refuses a document, which it does when the same seed and count are loaded twice.
    """
    planted = Counter(dict.fromkeys((PLAIN, *(kind.name for kind in KINDS)), 0))
    made = users_with_kinds(count, seed=seed, hostile=hostile)
    while pairs := list(islice(made, batch)):
        try:
            collection.insert_many([user for user, _ in pairs], ordered=False)
        except BulkWriteError as refused:
            message = f"{collection.full_name} refused {len(refused.details['writeErrors'])} users"
            raise Failed(message, hint="--seed with another number when appending") from None
        planted.update(kind for _, kind in pairs)
        if progress:
            progress(planted.total())
    return dict(planted)


@click.command()
@click.option("--mongo-url", envvar="MONGOSPLIT_MONGO_URL", required=True)
@click.option("--database", envvar="MONGOSPLIT_DATABASE", default="shop", show_default=True)
@click.option("--collection", "name", default="users", show_default=True)
@click.option("--count", type=click.IntRange(0), default=50_000, show_default=True)
@click.option("--hostile", type=click.FloatRange(0, 1), default=0.0, help="Share of hostile users.")
@click.option("--seed", "number", default=7, show_default=True, help="The same makes the same.")
@click.option("--append", is_flag=True, help="Also when the collection is not empty.")
def main(
    mongo_url: str, database: str, name: str, count: int, hostile: float, number: int, append: bool
) -> None:
    """Fill a collection with made-up users of the legacy shape; print how many of each kind."""
    try:
        with MongoClient[Document](mongo_url) as client:
            found = client[database][name]
            if not append and found.find_one({}, {"_id": 1}):
                raise UsageError(f"{found.full_name} is not empty", hint="--append adds to it")
            with Progress(console=Console(stderr=True)) as bar:
                task = bar.add_task("users", total=count)

                def show(done: int) -> None:
                    bar.update(task, completed=done)

                planted = seed(found, count, seed=number, hostile=hostile, progress=show)
    except MongosplitError as error:
        click.echo(f"Error: {error.message}; {error.hint}", err=True)
        raise SystemExit(error.exit_code) from None
    except PyMongoError as error:
        raise click.ClickException(f"no answer from --mongo-url: {type(error).__name__}") from None
    click.echo(json.dumps(planted))


if __name__ == "__main__":
    main()

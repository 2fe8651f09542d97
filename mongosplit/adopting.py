"""Adopting: documents of the application that became a user's part, as they are, and given back."""

from __future__ import annotations

from bson.raw_bson import RawBSONDocument

from mongosplit import raw
from mongosplit.keyspace import EXACT_IDS
from mongosplit.ledger.kept import Adoption
from mongosplit.mongo import Session, by_id, raw_documents
from mongosplit.open_run import OpenRun


def present(at: OpenRun, adoption: Adoption, session: Session) -> bytes | None:
    """The adopted document as it stands; None when the application has deleted it."""
    its_id = by_id(adoption.document_id)
    cursor = at.data[adoption.collection].find_raw_batches(its_id, session=session)
    return next(raw_documents(cursor), None)


def is_ours(adoption: Adoption, document: bytes | None) -> bool:
    """Whether the document still has the owner that adopting gave it."""
    return document is not None and raw.field(document, adoption.owner) == adoption.source_id


def give_back(at: OpenRun, adoption: Adoption, document: bytes | None, session: Session) -> None:
    """Give an adopted document its pre-image back.

    What the application changed since stands: then only the owner is taken from it again. One that
    the application has deleted stays deleted.
    """
    its_id, rows = by_id(adoption.document_id), at.data[adoption.collection]
    if document == adoption.after():
        # The driver looks into a replacement, which may hold an _id that is not plain.
        rows.replace_one(its_id, RawBSONDocument(adoption.before, EXACT_IDS), session=session)
    elif is_ours(adoption, document):
        rows.update_one(its_id, adoption.release(), session=session)

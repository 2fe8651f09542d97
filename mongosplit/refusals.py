"""Refusals: which parts the server refused to insert, and whether the document is the cause."""

from __future__ import annotations

from pymongo.errors import BulkWriteError

from mongosplit.mongo import DUPLICATE_KEY, VALIDATION_FAILED
from mongosplit.raw import MAX_DOCUMENT_BYTES

Refused = dict[bytes, int]
"""Parts the server refused, with its error code."""

OF_INDEX_KEYS = frozenset({171, 13026, 13027, 13068, 16755, 16756, 16766, 17261, 17262, 17280})
"""An index of the application on a target cannot hold the document: parallel arrays, points and
shapes that are none, arrays under a hash, unknown languages, keys too long."""
OF_THE_DOCUMENT = OF_INDEX_KEYS | {DUPLICATE_KEY, VALIDATION_FAILED}


def refusals(error: BulkWriteError) -> Refused:
    """The parts that a failed insert names.

    Raises:
        BulkWriteError: the cause lies elsewhere; to quarantine a document for it would be wrong.
    """
    found: Refused = {}
    for refusal in error.details.get("writeErrors", []):
        part, code = refusal["op"].raw, refusal["code"]
        # The server has no code of its own for a document a little too large.
        fits = len(part) <= MAX_DOCUMENT_BYTES
        if fits and code not in OF_THE_DOCUMENT:
            raise error
        found[part] = code
    if not found:
        raise error
    return found

"""One thread's hand on the source: sends intents, learns exact states, settles what is unknown."""

from __future__ import annotations

from bson.codec_options import CodecOptions
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect, PyMongoError

from mongosplit import raw
from mongosplit.mongo import Data, by_id
from ops.load.change import update_of
from ops.load.intent import Intent
from ops.load.journal import Journal, State
from ops.load.roster import Roster

_RAW: CodecOptions[RawBSONDocument] = DEFAULT_RAW_BSON_OPTIONS
_ONLY_ID = {"_id": 1}


class Clerk:
    """Writes the users of a roster in one session, and notes in the journal what becomes of it.

    `database` must write with majority and read what a majority has.
    """

    def __init__(
        self,
        database: Data,
        source: str,
        session: ClientSession,
        roster: Roster,
        journal: Journal | None,
    ) -> None:
        self._source = database[source].with_options(codec_options=_RAW)
        self._session, self._roster, self._journal = session, roster, journal

    def carry_out(self, intent: Intent) -> None:
        """Send one write.

        Raises:
            PyMongoError: it may or may not have happened; the user is then unsettled.
        """
        if intent.username is not None:
            name = RawBSONDocument(raw.build([("username", intent.username)]))
            self._source.find_one(name, _ONLY_ID, session=self._session)
        if self._journal:
            self._journal.intended(intent.key, intent.before, intent.after)
        try:
            state = self._write(intent)
        except PyMongoError:
            self._roster.unsettled.add(intent.key)
            raise
        except AttributeError as error:
            # The driver adds labels to a reply that failed in an election, which raw ones do not
            # allow (pymongo 4.20, `_check_command_response`).
            self._roster.unsettled.add(intent.key)
            raise AutoReconnect("an error of the server that the driver could not read") from error
        if self._journal:
            self._journal.acknowledged(intent.key, state)
        self._roster.put(intent.key, state)

    def settle(self, key: raw.Value) -> None:
        """Find out whether the last write of a user has happened.

        Raises:
            PyMongoError: that is still not known.
        """
        # A newer write of the same session shuts out an older one that is still on its way, and
        # one that changes nothing waits until a majority has all that went before.
        nobody = RawBSONDocument(raw.build([("_id", key), ("__v", raw.Value(0xFF, b""))]))
        self._source.update_one(nobody, {"$set": {"__v": 0}}, session=self._session)
        found = self._source.find_one(by_id(key), session=self._session)
        state = bytes(found.raw) if found else None
        if self._journal:
            self._journal.read(key, state)
        self._roster.put(key, state)

    def _write(self, intent: Intent) -> State:
        if intent.after is None:
            self._delete(intent)
            return None
        after = RawBSONDocument(intent.after)
        if intent.before is None:
            self._source.insert_one(after, session=self._session)
            return intent.after
        who = by_id(intent.key)
        if intent.changes is None:
            found = self._source.find_one_and_replace(
                who, after, return_document=ReturnDocument.AFTER, session=self._session
            )
        else:
            found = self._source.find_one_and_update(
                who,
                update_of(intent.changes),
                return_document=ReturnDocument.AFTER,
                session=self._session,
            )
        return bytes(found.raw) if found else None

    def _delete(self, intent: Intent) -> None:
        found = self._source.find_one_and_delete(by_id(intent.key), session=self._session)
        state = bytes(found.raw) if found else None
        if self._journal and state != intent.before:
            # What was deleted is the last that anybody learns of a write that was lost.
            self._journal.read(intent.key, state)
            self._journal.intended(intent.key, state, None)

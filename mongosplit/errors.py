"""Every error of ours, by who acts next.

MongosplitError(message, *, hint)
├─ DefinitionError   the author of the migration acts        exit 2
├─ UsageError        the operator mends a flag or a setting  exit 2
├─ Refused           the operator decides: it is not safe    exit 3
├─ Failed            the operator looks: it did not work     exit 1
├─ TransientError    nobody acts: it is tried again          exit 1 when the tries run out
└─ DocumentError     the data's owner acts: quarantine       never leaves the chunk
"""

from __future__ import annotations


class MongosplitError(Exception):
    """Root of the tree: one sentence saying what is wrong and where, and the next thing to type."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_document(self) -> dict[str, str]:
        """As the ledger keeps it: class, sentence, and what to type next."""
        return {"class": type(self).__name__, "sentence": self.message, "hint": self.hint}


class DefinitionError(MongosplitError):
    """The declaration of a migration is wrong; its author mends it."""

    exit_code = 2


class DefinitionChanged(DefinitionError):
    """A worker holds another version of the declaration than the run was planned with."""


class UsageError(MongosplitError):
    """A flag, a setting or a name the operator gave is wrong."""

    exit_code = 2


class Refused(MongosplitError):
    """What was asked is understood but not safe; nothing was done."""

    exit_code = 3


class IllegalTransition(Refused):
    """The ledger does not allow this change of state from where the run or the chunk is."""


class LeaseHeld(Refused):
    """Another driver holds the run."""


class Failed(MongosplitError):
    """It was tried and did not work; the operator looks at it."""


class TransientError(MongosplitError):
    """A passing condition (lost connection, write conflict, election); it is tried again."""


class Waiting(TransientError):
    """Something has to come first, and will; waiting for it is not a failed attempt."""


class FenceBusy(Waiting):
    """Another transaction holds the chunk's fence."""


class Lagging(Waiting):
    """What the application has written is not followed yet."""


class DocumentError(MongosplitError):
    """One source document cannot be split.

    `reason` is a class word for counting, `path` the source field path, `target` the collection
    that refuses it. The message never holds a value of the document.
    """

    def __init__(self, reason: str, path: str, message: str, *, target: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.path = path
        self.target = target

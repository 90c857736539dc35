"""Kept conversations, and the feedback on them, in a SQLite file of a workspace.

A file beside the ledger: the ledger never forgets, and this must be able to. What is deleted is overwritten.
Whatever a call has returned from is on the disk.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from selftaught.errors import ArtifactError, DataError
from selftaught.ledger.store import now
from selftaught.types import Message

INTERACTIONS_FILE = "interactions.db"
Kind = Literal["up", "down", "correction", "text", "follow_up"]
State = Literal["pending", "approved", "rejected", "learned"]
KINDS: tuple[Kind, ...] = ("up", "down", "correction", "text", "follow_up")
STATES: tuple[State, ...] = ("pending", "approved", "rejected", "learned")
SCHEMA = 1

_TABLES = """
CREATE TABLE interactions (
    id TEXT PRIMARY KEY,
    created TEXT NOT NULL,
    key TEXT NOT NULL,
    version TEXT NOT NULL,
    messages TEXT NOT NULL,
    completion TEXT NOT NULL,
    expires TEXT,
    conversation TEXT NOT NULL
);
CREATE INDEX by_conversation ON interactions (key, conversation);
CREATE INDEX by_expiry ON interactions (expires);
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created TEXT NOT NULL,
    interaction TEXT NOT NULL REFERENCES interactions (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX by_interaction ON feedback (interaction);
CREATE INDEX by_state ON feedback (state);
"""


@dataclass(frozen=True)
class Interaction:
    """An answer that was given, and what to.

    Attributes:
        id: of the completion, as the client knows it.
        created: when (UTC, ISO 8601).
        key: name of the key that asked.
        version: that answered.
        messages: the prompt.
        completion: the answer.
        expires: when it is deleted; None is when it is purged.
    """

    id: str
    created: str
    key: str
    version: str
    messages: tuple[Message, ...]
    completion: str
    expires: str | None = None


@dataclass(frozen=True)
class Feedback:
    """What a user said of an answer.

    Attributes:
        id: in the order of time.
        created: when (UTC, ISO 8601).
        interaction: the answer's id.
        key: name of the key that gave it.
        kind: a thumb ("up", "down"), the right answer ("correction"), a remark ("text"), or what the user said next
            ("follow_up").
        text: of the last three.
        state: "pending" till someone approved or rejected it, or a lesson learned from it.
    """

    id: int
    created: str
    interaction: str
    key: str
    kind: Kind
    text: str
    state: State


class Interactions:
    """An open store; several processes may have it open.

    Args:
        path: the SQLite file; made if it is missing.
        redact: applied to every text before it is kept.

    Raises:
        ArtifactError: it is damaged, cannot be written, or was written by a newer selftaught.
    """

    def __init__(self, path: Path, redact: Callable[[str], str] = lambda text: text) -> None:
        self.path, self._redact = path, redact
        with self._readable_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    # ------------------------------------------------------------------------------------ what is kept

    def keep(self, interaction: Interaction) -> None:
        """Keeps an answer."""
        self.keep_all([interaction])

    def keep_all(self, interactions: Sequence[Interaction]) -> None:
        """Keeps answers, all or none."""
        with self._transaction() as connection:
            for one in interactions:
                messages = [Message(turn.role, self._redact(turn.content)) for turn in one.messages]
                completion = self._redact(one.completion)
                # who goes on repeats what was really said; the hash tells nothing of it
                conversation = _hash(one.key, [*one.messages, Message("assistant", one.completion)])
                row = (one.id, one.created, one.key, one.version, _packed(messages), completion, one.expires)
                connection.execute("INSERT INTO interactions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, conversation))

    def add_feedback(self, interaction: str, key: str, kind: Kind, text: str = "") -> Feedback:
        """Notes what a user says of an answer.

        Raises:
            DataError: the answer is not kept, or another key's, or the text is missing.
        """
        if kind not in KINDS:
            raise DataError(f"kind: {kind!r} is none of {', '.join(KINDS)}")
        if not text.strip() and kind not in ("up", "down"):
            raise DataError(f"text: is empty; a {kind} needs one")
        with self._transaction() as connection:
            found = connection.execute("SELECT key FROM interactions WHERE id = ?", (interaction,)).fetchone()
            if found is None or found["key"] != key:
                raise DataError(
                    f"completion_id: {interaction!r} is no answer that was kept for this key; its conversations must "
                    "be stored, and not be older than its retention time"
                )
            return self._noted(connection, interaction, key, kind, text)

    def follow_up(self, key: str, messages: Sequence[Message]) -> Feedback | None:
        """Notes what a user says next, if a conversation goes on from an answer that was kept; each answer's once."""
        if len(messages) < 3 or messages[-1].role != "user" or messages[-2].role != "assistant":
            return None
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT id FROM interactions WHERE key = ? AND conversation = ? AND NOT EXISTS"
                " (SELECT 1 FROM feedback WHERE interaction = interactions.id AND kind = 'follow_up')"
                " ORDER BY rowid DESC LIMIT 1",
                (key, _hash(key, messages[:-1])),
            ).fetchone()
            return found and self._noted(connection, found["id"], key, "follow_up", messages[-1].content)

    def set_state(self, ids: Sequence[int], state: State) -> None:
        """Approves or rejects feedback, or says that it was learned; what was learned stays so.

        Raises:
            DataError: there is no such feedback, or no such state.
        """
        if state not in STATES:
            raise DataError(f"state: {state!r} is none of {', '.join(STATES)}")
        with self._transaction() as connection:
            for number in ids:
                if connection.execute("SELECT 1 FROM feedback WHERE id = ?", (number,)).fetchone() is None:
                    raise DataError(f"feedback {number}: there is none of that number")
                connection.execute("UPDATE feedback SET state = ? WHERE id = ? AND state != 'learned'", (state, number))

    # ------------------------------------------------------------------------------------ what is there

    def interaction(self, name: str) -> Interaction | None:
        """An answer by its id."""
        rows = self._rows("SELECT * FROM interactions WHERE id = ?", name)
        return _interaction(rows[0]) if rows else None

    def interactions(self, key: str | None = None) -> Iterator[Interaction]:
        """All answers that are kept, or a key's, the oldest first."""
        where, values = ("WHERE key = ?", (key,)) if key is not None else ("", ())
        for row in self._rows(f"SELECT * FROM interactions {where} ORDER BY rowid", *values):
            yield _interaction(row)

    def feedback(self, state: State | None = None) -> list[tuple[Feedback, Interaction]]:
        """All feedback, or that of a state, the oldest first, each with the answer that it is about."""
        where, values = ("WHERE state = ?", (state,)) if state is not None else ("", ())
        found = [_feedback(row) for row in self._rows(f"SELECT * FROM feedback {where} ORDER BY id", *values)]
        pairs = [(one, self.interaction(one.interaction)) for one in found]
        return [(one, about) for one, about in pairs if about is not None]

    def feedback_since(self, key: str, created: str) -> int:
        """How much feedback a key has given since a moment (UTC, ISO 8601)."""
        query = "SELECT count(*) AS n FROM feedback WHERE key = ? AND created >= ? AND kind != 'follow_up'"
        return int(self._rows(query, key, created)[0]["n"])

    # ----------------------------------------------------------------------------------- what is forgotten

    def purge(self, key: str | None = None, older_than: str | None = None, everything: bool = False) -> int:
        """Deletes answers and what was said of them, for good.

        Args:
            key: a key's only.
            older_than: those kept before this moment only (UTC, ISO 8601).
            everything: all of them; needed where neither of the above is given.

        Returns:
            How many answers were deleted.

        Raises:
            DataError: nothing says which.
        """
        if key is None and older_than is None and not everything:
            raise DataError("purge: say which: of a key, older than a time, or everything")
        chosen = [("key = ?", key), ("created < ?", older_than)]
        wheres = [where for where, value in chosen if value is not None] or ["1"]
        return self._delete(" AND ".join(wheres), [value for _, value in chosen if value is not None])

    def expire(self) -> int:
        """Deletes what is past its time; how many answers that were."""
        return self._delete("expires IS NOT NULL AND expires <= ?", [now()])

    # ------------------------------------------------------------------------------------------- inside

    def _noted(self, connection: sqlite3.Connection, interaction: str, key: str, kind: Kind, text: str) -> Feedback:
        row = (now(), interaction, key, kind, self._redact(text), "pending")
        query = "INSERT INTO feedback (created, interaction, key, kind, text, state) VALUES (?, ?, ?, ?, ?, ?)"
        number = connection.execute(query, row).lastrowid
        return _feedback(connection.execute("SELECT * FROM feedback WHERE id = ?", (number,)).fetchone())

    def _delete(self, where: str, values: Sequence[Any]) -> int:
        with self._transaction() as connection:
            count = connection.execute(f"DELETE FROM interactions WHERE {where}", values).rowcount
        if count:  # the log of changes still holds it until it is emptied
            with self._readable_errors():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def _migrate(self) -> None:
        with self._transaction() as connection:
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > SCHEMA:
                raise ArtifactError(
                    f"{self.path}: has schema {found} and this selftaught knows {SCHEMA}; use a newer selftaught"
                )
            if found < SCHEMA:
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._readable_errors():
            return list(self._connection.execute(query, values))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._readable_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise DataError(f"{self.path}: an answer of this id is kept already ({error})") from error
        except sqlite3.DatabaseError as error:
            raise ArtifactError(
                f"{self.path}: what was kept of conversations cannot be used ({error}); free some space, make it "
                "writable, or restore it from a backup"
            ) from error


def days_from_now(days: float) -> str:
    """A moment so many days ahead, or with a minus ago (UTC, ISO 8601)."""
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _hash(key: str, messages: Sequence[Message]) -> str:
    """Clients may have trimmed what they repeat."""
    trimmed = _packed([Message(turn.role, turn.content.strip()) for turn in messages])
    return hashlib.sha256(f"{key}\n{trimmed}".encode()).hexdigest()


def _packed(messages: Sequence[Message]) -> str:
    return json.dumps([[turn.role, turn.content] for turn in messages])


def _interaction(row: sqlite3.Row) -> Interaction:
    messages = tuple(Message(role, content) for role, content in json.loads(row["messages"]))
    return Interaction(
        row["id"], row["created"], row["key"], row["version"], messages, row["completion"], row["expires"]
    )


def _feedback(row: sqlite3.Row) -> Feedback:
    return Feedback(**dict(row))

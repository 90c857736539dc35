"""What is kept from use, in a SQLite file of its own: unlike the ledger it must be able to forget.

Every call is one transaction and on disk when it returns; several processes may have the file open, and several threads
may share one `Interactions`. Text is redacted before it is written. What is purged or has expired is overwritten with
zeros (secure_delete) and is then in none of SQLite's files.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selftaught.errors import ArtifactError, ConfigError, DataError
from selftaught.interactions.records import KINDS, STATES, THUMBS, Feedback, Interaction
from selftaught.ledger.migrations import migrate
from selftaught.types import Message

__all__ = ["Feedback", "Interaction", "Interactions", "utc"]

FILE = "interactions.db"  # in a workspace's own folder
WAIT_SECONDS = 30.0  # for another process's transaction, which takes milliseconds

MIGRATIONS = (
    """
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
    CREATE INDEX conversations ON interactions (key, conversation);
    CREATE INDEX expiries ON interactions (expires);
    CREATE TABLE feedback (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        created TEXT NOT NULL,
        interaction TEXT NOT NULL REFERENCES interactions (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        state TEXT NOT NULL
    );
    CREATE INDEX feedback_of ON feedback (interaction);
    CREATE INDEX states ON feedback (state);
    """,
)


class Interactions:
    """An open store.

    Args:
        path: the SQLite file; made if missing.
        redact: applied to every text before it is stored.

    Raises:
        ArtifactError: it is damaged, cannot be written, or was written by a newer selftaught.
    """

    def __init__(self, path: Path, redact: Callable[[str], str] = lambda text: text) -> None:
        self.path, self._redact, self._lock = path, redact, threading.RLock()
        with self._readable_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            try:
                path.chmod(0o600)  # what people wrote is nobody else's
                for setting in ("foreign_keys = ON", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                    self._connection.execute(f"PRAGMA {setting}")
                migrate(self._connection, MIGRATIONS, "store of interactions")
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    # ------------------------------------------------------------------------------------- what is kept

    def keep(self, interaction: Interaction) -> None:
        """Keeps a completion; it is on disk when this returns.

        Raises:
            DataError: one of that id is kept.
        """
        self.keep_all([interaction])

    def keep_all(self, interactions: Sequence[Interaction]) -> None:
        """Keeps several, all or none.

        Raises:
            DataError: one of such an id is kept.
        """
        rows = []
        for one in interactions:
            messages, completion = self._redacted(one.messages), self._redact(one.completion)
            text = json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False)
            mark = _conversation([*messages, Message("assistant", completion)])
            rows.append((one.id, one.created, one.key, one.version, text, completion, one.expires, mark))
        with self._transaction() as connection:
            try:
                connection.executemany("INSERT INTO interactions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            except sqlite3.IntegrityError as error:
                raise DataError(f"{self.path}: an interaction of this id is kept already; give each its own") from error

    def interaction(self, id: str) -> Interaction | None:
        """A kept completion, if it is there."""
        found = self._rows("SELECT * FROM interactions WHERE id = ?", id)
        return _interaction(found[0]) if found else None

    def interactions(self) -> list[Interaction]:
        """All of them, the oldest first."""
        return [_interaction(row) for row in self._rows("SELECT * FROM interactions ORDER BY created, rowid")]

    # ----------------------------------------------------------------------------------------- feedback

    def add_feedback(self, interaction: str, key: str, kind: str, text: str = "") -> Feedback:
        """Records what somebody said of a completion; it is on disk when this returns.

        Args:
            interaction: its id.
            key: whose feedback it is; that of the key that asked.
            kind: see `Feedback`.
            text: blank for thumbs, and for nothing else.

        Raises:
            DataError: the completion is not kept, or another key asked; or an unknown kind, or a text that is missing.
        """
        if kind not in KINDS:
            raise DataError(f"feedback: unknown kind {kind!r}; use one of {', '.join(KINDS)}")
        if (kind in THUMBS) == bool(text.strip()):
            wants = "takes no text" if kind in THUMBS else "needs a text"
            raise DataError(f"feedback: {kind!r} {wants}; send a correction or a text, or thumbs without one")
        with self._transaction() as connection:
            found = connection.execute("SELECT key FROM interactions WHERE id = ?", (interaction,)).fetchone()
            if found is None or found["key"] != key:  # one message: whose it is is nobody else's business
                raise DataError(
                    f"{interaction[:80]}: no such completion is kept of yours; only kept ones take feedback"
                )
            return self._insert_feedback(connection, interaction, key, kind, text)

    def follow_up(self, key: str, messages: Sequence[Message]) -> Feedback | None:
        """Records a user's next message as feedback on the answer before it, if that one is kept; once.

        Args:
            key: who asks.
            messages: of a new request: a kept prompt, its completion, and what the user says now.
        """
        if len(messages) < 3 or [one.role for one in messages[-2:]] != ["assistant", "user"]:
            return None
        text = messages[-1].content
        mark = _conversation(self._redacted(messages[:-1]))
        query = "SELECT id FROM interactions WHERE key = ? AND conversation = ? ORDER BY rowid DESC LIMIT 1"
        said = "SELECT 1 FROM feedback WHERE interaction = ? AND kind = 'follow_up' AND text = ?"
        with self._transaction() as connection:
            found = connection.execute(query, (key, mark)).fetchone()
            if found is None or not text.strip():
                return None
            if connection.execute(said, (found["id"], self._redact(text))).fetchone() is not None:
                return None
            return self._insert_feedback(connection, found["id"], key, "follow_up", text)

    def feedback(self, state: str | None = None) -> list[tuple[Feedback, Interaction]]:
        """Feedback with what it is about, the oldest first; of one state, or all."""
        rows = self._rows(
            "SELECT feedback.*, interactions.created AS asked, version, messages, completion, expires "
            "FROM feedback JOIN interactions ON interactions.id = interaction "
            "WHERE ?1 IS NULL OR state = ?1 ORDER BY feedback.id",
            state,
        )
        abouts = [{**dict(row), "id": row["interaction"], "created": row["asked"]} for row in rows]
        return [(_feedback(row), _interaction(about)) for row, about in zip(rows, abouts, strict=True)]

    def num_feedback(self, key: str, since: str) -> int:
        """How much feedback a key has given since a moment (UTC, ISO 8601); what it said next not counted."""
        query = "SELECT count(*) FROM feedback WHERE key = ? AND created >= ? AND kind != 'follow_up'"
        return int(self._rows(query, key, since)[0][0])

    def set_state(self, ids: Sequence[int], state: str) -> None:
        """Says what became of feedback; of all of it or, if some is not there, of none.

        Raises:
            DataError: an unknown state, or feedback that is not there.
        """
        if state not in STATES:
            raise DataError(f"feedback: unknown state {state!r}; use one of {', '.join(STATES)}")
        with self._transaction() as connection:
            for id in ids:
                if not connection.execute("UPDATE feedback SET state = ? WHERE id = ?", (state, id)).rowcount:
                    raise DataError(f"feedback {id}: there is none of this number; it may have been purged")

    # --------------------------------------------------------------------------------------- forgetting

    def purge(
        self, *, key: str | None = None, older_than: datetime.timedelta | None = None, everything: bool = False
    ) -> int:
        """Deletes interactions with their feedback, for good; what fits all that is given.

        Args:
            key: only this key's.
            older_than: only what was kept before so long.
            everything: needed where neither is given.

        Returns:
            How many interactions.

        Raises:
            ConfigError: nothing says what.
            ArtifactError: another process is reading, so that the files cannot be cleaned yet.
        """
        if key is None and older_than is None and not everything:
            raise ConfigError("purge: say what: a key, an age, or everything")
        before = None if older_than is None else utc(-older_than)
        query = "DELETE FROM interactions WHERE (?1 IS NULL OR key = ?1) AND (?2 IS NULL OR created < ?2)"
        return self._delete(query, (key, before), always=True)

    def expire(self) -> int:
        """Deletes what is past its time, for good; how many interactions."""
        return self._delete("DELETE FROM interactions WHERE expires <= ?", (utc(),), always=False)

    def _delete(self, query: str, values: tuple[Any, ...], always: bool) -> int:
        """Deletes rows, then what the journal and free pages may still hold of them."""
        with self._transaction() as connection:
            gone = connection.execute(query, values).rowcount
        if gone or always:  # an earlier purge may have been killed before its files were clean
            with self._lock, self._readable_errors():
                self._connection.execute("VACUUM")
                busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                raise ArtifactError(
                    f"{self.path}: {gone} deleted, but another process is reading, so that the journal still holds "
                    "them; do it again"
                )
        return gone

    # ------------------------------------------------------------------------------------------- inside

    def _redacted(self, messages: Sequence[Message]) -> list[Message]:
        return [Message(message.role, self._redact(message.content)) for message in messages]

    def _insert_feedback(
        self, connection: sqlite3.Connection, interaction: str, key: str, kind: str, text: str
    ) -> Feedback:
        row = (utc(), interaction, key, kind, self._redact(text), "pending")
        query = "INSERT INTO feedback (created, interaction, key, kind, text, state) VALUES (?, ?, ?, ?, ?, ?)"
        number = connection.execute(query, row).lastrowid
        return _feedback(connection.execute("SELECT * FROM feedback WHERE id = ?", (number,)).fetchone())

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, self._readable_errors():
            return list(self._connection.execute(query, values))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._readable_errors():
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
        except UnicodeEncodeError as error:
            raise DataError(f"a text holds half a character (a lone surrogate) at {error.start}; remove it") from error
        except ArtifactError:
            raise
        except (sqlite3.DatabaseError, OSError) as error:
            raise ArtifactError(
                f"{self.path}: the store of interactions cannot be used ({error}); see whether its disk is full or "
                "read-only, or move a damaged file away"
            ) from error


def utc(later: datetime.timedelta = datetime.timedelta()) -> str:
    """Now, or so much later, in UTC as ISO 8601; texts compare as their times do."""
    return (datetime.datetime.now(datetime.timezone.utc) + later).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _conversation(messages: Sequence[Message]) -> str:
    """A hash that is the same however a client trims its messages."""
    text = json.dumps([[message.role, message.content.strip()] for message in messages])
    return hashlib.sha256(text.encode()).hexdigest()


def _interaction(row: Any) -> Interaction:
    messages = tuple(Message(role, content) for role, content in json.loads(row["messages"]))
    return Interaction(
        row["id"], row["created"], row["key"], row["version"], messages, row["completion"], row["expires"]
    )


def _feedback(row: sqlite3.Row) -> Feedback:
    names = ("id", "created", "interaction", "key", "kind", "text", "state")
    return Feedback(**{name: row[name] for name in names})

"""API keys: shown once when they are made; only their hash is kept."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from selftaught.continual.workspace import FOLDER
from selftaught.errors import ArtifactError, ConfigError
from selftaught.ledger.store import now

PREFIX = "st-"
LOCAL = "local"  # who asks where there are no keys
FORGET = 10_000  # keys and addresses whose pace is remembered

_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    revoked TEXT,
    store INTEGER NOT NULL,
    retention_days REAL,
    requests_per_minute INTEGER NOT NULL,
    feedback_per_day INTEGER NOT NULL,
    operator INTEGER NOT NULL
)
"""


@dataclass(frozen=True)
class Key:
    """What is known of a key.

    Attributes:
        name: names it in the records; never the key itself.
        created: when (UTC, ISO 8601).
        revoked: when, if it was.
        store: its conversations are kept, to be learned from.
        retention_days: for how long; None is until they are purged.
        requests_per_minute: that it may make.
        feedback_per_day: that it may give.
        operator: it may see the page, others' feedback among it, and decide on that.
    """

    name: str
    created: str = ""
    revoked: str | None = None
    store: bool = False
    retention_days: float | None = None
    requests_per_minute: int = 600
    feedback_per_day: int = 1000
    operator: bool = False


class Keys:
    """The keys of a workspace, in a file of their own.

    Args:
        path: made when the first key is.

    Raises:
        ArtifactError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def of_workspace(root: Path) -> Keys:
        """Those of the workspace in a folder."""
        return Keys(root / FOLDER / "keys.db")

    def add(self, key: Key) -> str:
        """Makes a key.

        Returns:
            The key itself, which is kept nowhere.

        Raises:
            ConfigError: the name is taken, or is no plain word.
        """
        if not key.name.replace("-", "").replace("_", "").isalnum() or key.name == LOCAL:
            raise ConfigError(f"{key.name!r}: name a key by letters, digits, - and _, and not {LOCAL!r}")
        secret = PREFIX + secrets.token_urlsafe(32)
        row = (
            key.name, _hash(secret), now(), None, int(key.store),
            key.retention_days, key.requests_per_minute, key.feedback_per_day, int(key.operator),
        )  # fmt: skip
        try:
            with self._open() as connection:
                connection.execute(f"INSERT INTO keys VALUES ({', '.join('?' * len(row))})", row)
        except sqlite3.IntegrityError as error:
            raise ConfigError(f"{key.name}: there is, or was, a key of this name; choose another") from error
        return secret

    def revoke(self, name: str) -> None:
        """Refuses a key from now on.

        Raises:
            ConfigError: there is none of that name.
        """
        with self._open() as connection:
            changed = connection.execute("UPDATE keys SET revoked = coalesce(revoked, ?) WHERE name = ?", (now(), name))
            if not changed.rowcount:
                raise ConfigError(f"{name}: no such key; selftaught keys list shows them")

    def all(self) -> list[Key]:
        """All keys that were ever made, the oldest first."""
        if not self.path.is_file():
            return []
        with self._open() as connection:
            return [_key(row) for row in connection.execute("SELECT * FROM keys ORDER BY rowid")]

    def of(self, secret: str) -> Key | None:
        """Whose a key is; None if it is nobody's, or was revoked."""
        if not self.path.is_file():
            return None
        with self._open() as connection:
            query = "SELECT * FROM keys WHERE hash = ? AND revoked IS NULL"
            row = connection.execute(query, (_hash(secret),)).fetchone()
        return _key(row) if row else None

    def _open(self) -> _Connection:
        return _Connection(self.path)


class _Connection:
    """A short-lived connection; what is done in the block is committed together."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._connection = sqlite3.connect(self._path, timeout=30)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{self._path}: the keys cannot be used ({error}); restore it from a backup") from error
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.rollback() if kind else self._connection.commit()
        self._connection.close()


class Pace:
    """Lets each name do so many things a minute, and as many at once at first (a token bucket)."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by name: what is left, and when it was so

    def wait_seconds(self, name: str, per_minute: float) -> float:
        """0 if it may go ahead, which is then counted; else how long it must wait."""
        moment = time.monotonic()
        left, since = self._left.pop(name, (per_minute, moment))
        left = min(per_minute, left + (moment - since) * per_minute / 60)
        allowed = left >= 1
        self._left[name] = (left - 1 if allowed else left, moment)
        if len(self._left) > FORGET:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / per_minute


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: sqlite3.Row) -> Key:
    values = {name: row[name] for name in row.keys() if name != "hash"}  # noqa: SIM118  # a Row is no mapping
    return Key(**{**values, "store": bool(row["store"]), "operator": bool(row["operator"])})

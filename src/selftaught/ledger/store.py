"""The ledger: what was taught, measured and decided, in a SQLite file that only ever grows.

Everything that belongs together is one transaction, and whatever a transaction names is on disk before it
begins: a process may be killed between any two instructions, and what is found afterwards is whole.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selftaught._version import __version__
from selftaught.errors import ArtifactError, ConfigError, DataError
from selftaught.ledger.migrations import check_age, migrate
from selftaught.ledger.records import Evaluation, Event, Skill, Version

Record = TypeVar("Record")

WAIT_SECONDS = 30.0  # for another process's transaction, which takes milliseconds


class Ledger:
    """An open ledger. Each call is one transaction; several processes may have it open.

    Args:
        path: the SQLite file.
        create: make it; else it must be there.

    Raises:
        ArtifactError: it is missing, damaged, cannot be written, or was written by a newer selftaught.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        self.path = path
        if not create and not path.is_file():
            raise ArtifactError(f"{path}: there is no ledger; make a workspace with selftaught init")
        with self._readable_errors():
            self._connection = self._connected()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read in the block is of one moment, whatever others write meanwhile."""
        with self._readable_errors():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    # ------------------------------------------------------------------------------------ what is there

    def skills(self) -> list[Skill]:
        """All skills, in the order in which they were registered."""
        return self._records(_skill, "SELECT * FROM skills ORDER BY rowid")

    def skill(self, name: str) -> Skill:
        """One skill.

        Raises:
            ConfigError: there is none of that name.
        """
        found = {skill.name: skill for skill in self.skills()}
        if name not in found:
            known = ", ".join(found) or "none yet"
            raise ConfigError(f"{name}: no such skill here (registered: {known}); add it with selftaught skills add")
        return found[name]

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        return self._records(_version, "SELECT * FROM versions ORDER BY number")

    def version(self, name: str) -> Version:
        """One version: "v3", "3" or "HEAD".

        Raises:
            ConfigError: there is none of that name.
        """
        if name.upper() == "HEAD":
            return self.head()
        digits = name.lower().removeprefix("v")
        number = int(digits) if digits.isdecimal() and len(digits) < 10 else -1
        found = self._records(_version, "SELECT * FROM versions WHERE number = ?", number)
        if not found:
            raise ConfigError(f"{name}: no such version; selftaught log lists them")
        return found[0]

    def head(self) -> Version:
        """The version that is in force."""
        found = self._records(
            _version,
            "SELECT * FROM versions WHERE number ="
            " (SELECT head FROM events WHERE head IS NOT NULL ORDER BY number DESC LIMIT 1)",
        )
        if not found:
            raise ArtifactError(f"{self.path}: holds no version yet; run selftaught init again")
        return found[0]

    def has_head(self) -> bool:
        """Whether the base has been recorded."""
        return bool(self._rows("SELECT 1 FROM events WHERE head IS NOT NULL LIMIT 1"))

    def lineage(self, version: Version) -> list[Version]:
        """A version and what it was taught from, back to the base."""
        known = {found.number: found for found in self.versions()}
        line = [version]
        while line[-1].parent is not None:
            if not (line[-1].parent in known and line[-1].parent < line[-1].number):
                raise self._damaged(f"{line[-1].name} was taught from what is no earlier version")
            line.append(known[line[-1].parent])
        return line

    def status(self, version: Version) -> str:
        """What became of a version: the kind of its last event, its weights' removal apart."""
        rows = self._rows(
            "SELECT kind FROM events WHERE version = ? AND kind != 'collected' ORDER BY number DESC LIMIT 1",
            version.number,
        )
        if not rows:
            raise self._damaged(f"nothing is said of {version.name}")
        return str(rows[0]["kind"])

    def events(self) -> list[Event]:
        """All that happened, the oldest first."""
        return self._records(lambda row: Event(**dict(row)), "SELECT * FROM events ORDER BY number")

    def evaluations(self, version: Version) -> list[Evaluation]:
        """What a version was asked, in the order of time."""
        query = "SELECT * FROM evaluations WHERE version = ? ORDER BY rowid"
        return self._records(_evaluation, query, version.number)

    def verdict(self, version: Version) -> dict[str, Any] | None:
        """What the gate said of a version: {"outcome", "sentence", "checks", "policy"}; None for the base."""
        found = self._records(_verdict, "SELECT * FROM verdicts WHERE version = ?", version.number)
        return found[0] if found else None

    def artifacts(self) -> set[str]:
        """Digests of all artifacts that must be there: of removed weights none."""
        collected = {event.version for event in self.events() if event.kind == "collected"}
        digests = {row[0] for row in self._rows("SELECT results_artifact FROM evaluations")}
        digests |= {skill.rows_artifact for skill in self.skills()}
        for version in self.versions():
            if version.number not in collected:
                digests |= {version.model_artifact} | ({version.adapter_artifact} - {None})
        return digests

    def check(self) -> list[str]:
        """What SQLite itself, and the ledger's own rules, find wrong; usually nothing."""
        found = [str(row[0]) for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
        found += [f"a {row[0]} row names a missing {row[2]}" for row in self._rows("PRAGMA foreign_key_check")]
        return found

    # ----------------------------------------------------------------------------------- what is added

    def add_skill(self, skill: Skill) -> None:
        """Registers a skill.

        Raises:
            DataError: its name is taken.
        """
        with self._transaction() as connection:
            self.check_new_skill(skill.name)
            _insert(connection, "skills", {**vars(skill), "card": _json(skill.card)})

    def check_new_skill(self, name: str) -> None:
        """Finds a taken name before anything is measured.

        Raises:
            DataError: it is taken.
        """
        if self._rows("SELECT 1 FROM skills WHERE name = ?", name):
            raise DataError(f"{name}: a skill of this name is registered, and never changes; choose another name")

    def add_base(self, model_artifact: str, source: str) -> Version:
        """Records the untaught model as version 0, and HEAD."""
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM versions").fetchone() is None:
                version = Version(
                    0, None, None, now(), None, None, None, None, __version__, model_artifact, None, 0.0, {}
                )
                _insert_version(connection, version)
                _insert_event(connection, "base", 0, 0, source)
        return self.version("v0")

    def add_evaluations(self, version: Version, evaluations: Sequence[Evaluation]) -> None:
        """Adds answers of a version to suites that it had not been asked."""
        with self._transaction() as connection:
            _insert_evaluations(connection, version.number, evaluations)

    def add_version(
        self, version: Version, evaluations: Sequence[Evaluation], verdict: Mapping[str, Any], status: str, reason: str
    ) -> Version:
        """Records a taught model with its answers and its verdict, and moves HEAD if it is promoted: all at once.

        Args:
            version: its number is given here.
            evaluations: of it.
            verdict: the gate's, see `Ledger.verdict`.
            status: "promoted", "rejected" or "inconclusive".
            reason: in words.

        Raises:
            ConfigError: it is to be promoted, but HEAD is no longer the version that it was taught from.
        """
        with self._transaction() as connection:
            number = connection.execute("SELECT max(number) + 1 FROM versions").fetchone()[0]
            if status == "promoted":
                self._check_parent(connection, version.parent)
            version = Version(**{**vars(version), "number": number})
            _insert_version(connection, version)
            _insert_evaluations(connection, number, evaluations)
            row = {**verdict, "version": number, "checks": _json(verdict["checks"]), "policy": _json(verdict["policy"])}
            _insert(connection, "verdicts", row)
            _insert_event(connection, status, number, number if status == "promoted" else None, reason)
        return version

    def promote(self, version: Version, reason: str) -> None:
        """Moves HEAD to a version that the gate had not let in.

        Raises:
            ConfigError: HEAD is not the version that it was taught from.
        """
        with self._transaction() as connection:
            self._check_parent(connection, version.parent)
            _insert_event(connection, "promoted", version.number, version.number, reason)

    def roll_back(self, target: Version, reason: str) -> list[Version]:
        """Moves HEAD back along its lineage.

        Returns:
            The versions that are no longer in force.

        Raises:
            ConfigError: HEAD does not descend from the target, or is it.
        """
        with self._transaction() as connection:
            line = self.lineage(self.head())
            numbers = [version.number for version in line]
            if target.number not in numbers[1:]:
                earlier = ", ".join(version.name for version in line[1:])
                where = f"it can go to {earlier}" if earlier else "there is none earlier"
                why = (
                    "is HEAD already"
                    if target.number == numbers[0]
                    else f"HEAD ({line[0].name}) does not descend from it"
                )
                raise ConfigError(f"{target.name}: {why}; {where}")
            gone = line[: numbers.index(target.number)]
            for version in gone:
                _insert_event(connection, "rolled back", version.number, target.number, reason)
        return gone

    def collected(self, versions: Sequence[Version]) -> None:
        """Notes that the weights of versions are going to be removed."""
        with self._transaction() as connection:
            for version in versions:
                _insert_event(connection, "collected", version.number, None, "weights removed by gc")

    # ------------------------------------------------------------------------------------------- inside

    def _check_parent(self, connection: sqlite3.Connection, parent: int | None) -> None:
        head = connection.execute(
            "SELECT head FROM events WHERE head IS NOT NULL ORDER BY number DESC LIMIT 1"
        ).fetchone()[0]
        if head != parent:
            raise ConfigError(
                f"HEAD is v{head} now, and this was taught from v{parent}; teach the skill again from HEAD"
            )

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            if "readonly" not in str(error) and "unable to open" not in str(error):
                raise
            connection = self._read_only()
        except BaseException:
            connection.close()
            raise
        return connection

    def _read_only(self) -> sqlite3.Connection:
        """On a disk that cannot be written, what is there can still be looked at."""
        waiting = self.path.with_name(f"{self.path.name}-wal")
        mode = "mode=ro" if waiting.is_file() and waiting.stat().st_size else "mode=ro&immutable=1"
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
        connection.row_factory = sqlite3.Row
        check_age(connection)
        return connection

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._readable_errors():
            return list(self._connection.execute(query, values))

    def _records(self, make: Callable[[sqlite3.Row], Record], query: str, *values: Any) -> list[Record]:
        rows = self._rows(query, *values)
        try:
            return [make(row) for row in rows]
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, problem: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: the ledger is damaged ({problem}); restore it from a backup")

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
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # a damaged table's name, in SQLite's own words
            words = str(error)
            hint = "restore it from a backup"
            if "full" in words:
                hint = "free some space and run the same command again"
            elif "readonly" in words or "unable to open" in words:
                hint = "make the workspace writable"
            elif "locked" in words:
                hint = "another process is writing; try again"
            elif "disk I/O" in words:
                hint = "see whether the disk is full or failing"
            raise ArtifactError(f"{self.path}: the ledger cannot be used ({words}); {hint}") from error


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))


def _insert_version(connection: sqlite3.Connection, version: Version) -> None:
    config = None if version.config is None else _json(version.config)
    _insert(connection, "versions", {**vars(version), "config": config, "training": _json(version.training)})


def _insert_evaluations(connection: sqlite3.Connection, number: int, evaluations: Sequence[Evaluation]) -> None:
    for evaluation in evaluations:
        _insert(connection, "evaluations", {"version": number, "created": now(), **vars(evaluation)})


def _insert_event(connection: sqlite3.Connection, kind: str, version: int, head: int | None, reason: str) -> None:
    row = {"created": now(), "kind": kind, "version": version, "head": head, "reason": reason}
    _insert(connection, "events", row)


def _skill(row: sqlite3.Row) -> Skill:
    return Skill(**{**dict(row), "card": json.loads(row["card"])})


def _evaluation(row: sqlite3.Row) -> Evaluation:
    names = ("suite", "kind", "items_hash", "correct", "total", "results_artifact")
    return Evaluation(**{name: row[name] for name in names})


def _verdict(row: sqlite3.Row) -> dict[str, Any]:
    checks, policy = json.loads(row["checks"]), json.loads(row["policy"])
    return {"outcome": row["outcome"], "sentence": row["sentence"], "checks": checks, "policy": policy}


def _version(row: sqlite3.Row) -> Version:
    config = None if row["config"] is None else json.loads(row["config"])
    return Version(**{**dict(row), "config": config, "training": json.loads(row["training"])})

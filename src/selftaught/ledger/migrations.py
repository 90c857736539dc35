"""The ledger's tables, as numbered steps: a ledger of any age is brought up to date when it is opened.

Nothing is ever changed or deleted in it: triggers refuse. What happens to a version later (it is promoted,
rolled back, its weights are removed) is a new event. `HEAD` is what the last event that names a head says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from selftaught.errors import ArtifactError

_TABLES = ("skills", "versions", "evaluations", "verdicts", "events")
_KEYS = {
    "skills": "name = NEW.name",
    "versions": "number = NEW.number",
    "evaluations": "version = NEW.version AND suite = NEW.suite AND items_hash = NEW.items_hash",
    "verdicts": "version = NEW.version",
    "events": "number = NEW.number",
}

MIGRATIONS = (
    """
    CREATE TABLE skills (
        name TEXT PRIMARY KEY,
        created TEXT NOT NULL,
        source TEXT NOT NULL,
        data_hash TEXT NOT NULL,
        rows_artifact TEXT NOT NULL,
        max_new_tokens INTEGER NOT NULL,
        card TEXT NOT NULL
    );
    CREATE TABLE versions (
        number INTEGER PRIMARY KEY,
        parent INTEGER REFERENCES versions (number),
        skill TEXT REFERENCES skills (name),
        created TEXT NOT NULL,
        method TEXT,
        config TEXT,
        seed INTEGER,
        data_hash TEXT,
        code_version TEXT NOT NULL,
        model_artifact TEXT NOT NULL,
        adapter_artifact TEXT,
        drift_nats REAL,
        training TEXT NOT NULL
    );
    CREATE TABLE evaluations (
        version INTEGER NOT NULL REFERENCES versions (number),
        suite TEXT NOT NULL,
        kind TEXT NOT NULL,
        items_hash TEXT NOT NULL,
        created TEXT NOT NULL,
        correct INTEGER NOT NULL,
        total INTEGER NOT NULL,
        results_artifact TEXT NOT NULL,
        PRIMARY KEY (version, suite, items_hash)
    );
    CREATE TABLE verdicts (
        version INTEGER PRIMARY KEY REFERENCES versions (number),
        outcome TEXT NOT NULL,
        sentence TEXT NOT NULL,
        checks TEXT NOT NULL,
        policy TEXT NOT NULL
    );
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        created TEXT NOT NULL,
        kind TEXT NOT NULL,
        version INTEGER NOT NULL REFERENCES versions (number),
        head INTEGER REFERENCES versions (number),
        reason TEXT NOT NULL
    );
    """
    + "".join(
        f"""
    CREATE TRIGGER {table}_keep_{verb.lower()} BEFORE {verb} ON {table}
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    """
        for table in _TABLES
        for verb in ("UPDATE", "DELETE")
    ),
    "".join(  # REPLACE deletes without asking the triggers of DELETE
        f"""
    CREATE TRIGGER {table}_keep_replace BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {key})
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    """
        for table, key in _KEYS.items()
    ),
)


def migrate(connection: sqlite3.Connection, scripts: Sequence[str] | None = None, what: str = "ledger") -> None:
    """Brings a file's tables up to date, all steps or none.

    Args:
        connection: in autocommit mode.
        scripts: the steps from the first on; None takes the ledger's.
        what: the file is called in messages.

    Raises:
        ArtifactError: it was written by a newer selftaught.
    """
    steps = MIGRATIONS if scripts is None else scripts
    check_age(connection, steps, what)
    if _version(connection) == len(steps):
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        check_age(connection, steps, what)  # another process may have been faster
        for script in steps[_version(connection) :]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_age(connection: sqlite3.Connection, scripts: Sequence[str] | None = None, what: str = "ledger") -> None:
    """Looks whether the tables are ones that we know.

    Raises:
        ArtifactError: the file was written by a newer selftaught.
    """
    known = len(MIGRATIONS if scripts is None else scripts)
    if (found := _version(connection)) > known:
        raise ArtifactError(f"the {what} has schema {found} and this selftaught knows {known}; use a newer selftaught")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """Single statements: `executescript` would commit between them."""
    statements, begun = [], ""
    for piece in script.split(";"):
        begun += piece + ";"
        if sqlite3.complete_statement(begun):
            statements.append(begun.strip())
            begun = ""
    return [statement for statement in statements if statement != ";"]

"""A ledger of any age comes up to date, all at once or not at all, and keeps what it holds."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from selftaught.errors import ArtifactError
from selftaught.ledger import migrations
from selftaught.ledger.migrations import MIGRATIONS, migrate

BASE = (
    "INSERT INTO versions (number, created, code_version, model_artifact, training) VALUES (0, 'now', '0', 'a', '{}')"
)


def connect(path: Path | str = ":memory:") -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return list(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"))


def number(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_the_tables_are_those_that_sqlite_makes_of_the_scripts() -> None:
    ours, reference = connect(), connect()
    migrate(ours)
    for script in MIGRATIONS:
        reference.executescript(script)
    names = [(kind, name, table) for kind, name, table, _ in schema(ours)]
    assert names == [(kind, name, table) for kind, name, table, _ in schema(reference)]
    assert number(ours) == len(MIGRATIONS)


def test_again_changes_nothing() -> None:
    connection = connect()
    migrate(connection)
    connection.execute(BASE)
    before = list(connection.iterdump())
    changes = connection.total_changes
    migrate(connection)
    assert list(connection.iterdump()) == before
    assert connection.total_changes == changes


@pytest.mark.parametrize("age", range(1, len(MIGRATIONS) + 1))
def test_an_older_ledger_keeps_its_rows(age: int, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect()
    with monkeypatch.context() as context:
        context.setattr(migrations, "MIGRATIONS", MIGRATIONS[:age])
        migrate(connection)
    connection.execute(BASE)
    before = list(connection.execute("SELECT * FROM versions"))
    migrate(connection)
    fresh = connect()
    migrate(fresh)
    assert list(connection.execute("SELECT * FROM versions")) == before
    assert schema(connection) == schema(fresh)


def test_a_step_that_fails_leaves_the_ledger_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect()
    migrate(connection)
    before = schema(connection)
    broken = (*MIGRATIONS, "CREATE TABLE more (a TEXT);", "CREATE TABLE last (a TEXT); INSERT INTO nowhere VALUES (1);")
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(connection)
    assert (schema(connection), number(connection)) == (before, len(MIGRATIONS))
    assert not connection.in_transaction


def test_a_newer_ledger_is_left_alone() -> None:
    connection = connect()
    migrate(connection)
    connection.execute("CREATE TABLE later (a TEXT)")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = schema(connection)
    with pytest.raises(ArtifactError, match=f"schema {len(MIGRATIONS) + 1} .* use a newer selftaught"):
        migrate(connection)
    assert schema(connection) == before
    assert not connection.in_transaction


def test_several_at_once(tmp_path: Path) -> None:
    """Each finds the tables made, by itself or by another."""
    errors: list[Exception] = []

    def open_and_migrate() -> None:
        try:
            connection = connect(tmp_path / "ledger.db")
            connection.execute("PRAGMA busy_timeout = 30000")
            migrate(connection)
            connection.execute("SELECT * FROM versions")
            connection.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_and_migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors

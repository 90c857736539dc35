"""The ledger: it only grows, HEAD follows its rules, and whatever happens to its file is told in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import public_folder, read_only
from records import SKILL, TRAINING, VERDICT, evaluation, made, taught, version

from selftaught.errors import ArtifactError, ConfigError, DataError, SelftaughtError
from selftaught.ledger import migrations, store
from selftaught.ledger.store import Ledger

TABLES = ("skills", "versions", "evaluations", "verdicts", "events")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Past our own code."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0.1)) as connection:
        yield connection


def everything(ledger: Ledger) -> list[object]:
    """All that a ledger can be asked."""
    versions = ledger.versions()
    return [
        *[ledger.head(), ledger.has_head(), ledger.skills(), versions, ledger.events(), ledger.artifacts()],
        *[(ledger.status(one), ledger.evaluations(one), ledger.verdict(one), ledger.lineage(one)) for one in versions],
        ledger.check(),
    ]


# ------------------------------------------------------------------------------------- it only grows


@pytest.mark.parametrize("table", TABLES)
def test_nothing_can_be_changed_or_deleted(table: str, path: Path) -> None:
    """Not even past our own code."""
    taught(made(path), 0)
    with raw(path) as connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        before = list(connection.execute(f"SELECT * FROM {table}"))
        assert before
        changes = [f"UPDATE {table} SET {column} = {column}" for column in columns]
        changes += [f"DELETE FROM {table}", f"REPLACE INTO {table} SELECT * FROM {table}"]
        changes += [f"INSERT INTO {table} SELECT * FROM {table} WHERE true ON CONFLICT DO UPDATE SET {columns[1]} = 1"]
        for change in changes:
            with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
                connection.execute(change)
        assert list(connection.execute(f"SELECT * FROM {table}")) == before


def test_what_is_recorded_is_what_is_found(path: Path) -> None:
    ledger = made(path)
    recorded = taught(ledger, 0, "inconclusive")
    ledger.add_evaluations(ledger.head(), [evaluation("later")])
    for reader in (ledger, Ledger(path)):
        assert reader.skills() == [SKILL] == [reader.skill("tools")]
        assert reader.version("v1") == recorded == dataclasses.replace(version(0), number=1)
        assert reader.version("v1").training == TRAINING
        assert reader.evaluations(recorded) == [evaluation(), evaluation("facts")]
        assert [one.suite for one in reader.evaluations(reader.head())] == ["later"]
        assert reader.verdict(recorded) == VERDICT
        assert reader.verdict(reader.head()) is None
        assert reader.artifacts() == {letter * 64 for letter in "abef"}
        assert [(e.kind, e.version, e.head, e.reason) for e in reader.events()] == [
            ("base", 0, 0, "the base"),
            ("inconclusive", 1, None, "inconclusive because"),
        ]
        assert reader.check() == []


def test_a_base_is_recorded_once(path: Path) -> None:
    ledger = made(path)
    before = everything(ledger)
    assert ledger.add_base("c" * 64, "another").model_artifact == "b" * 64
    assert everything(ledger) == before


def test_a_skill_name_is_taken_for_ever(path: Path) -> None:
    ledger = made(path)
    with pytest.raises(DataError, match="tools: a skill of this name is registered, and never changes"):
        ledger.add_skill(dataclasses.replace(SKILL, source="another"))
    with pytest.raises(ConfigError, match=r"tolls: no such skill here \(registered: tools\)"):
        ledger.skill("tolls")
    assert ledger.skills() == [SKILL]


@pytest.mark.parametrize("flaw", ["verdict", "evaluation", "parent", "skill"])
def test_a_version_is_recorded_whole_or_not_at_all(flaw: str, path: Path) -> None:
    ledger = made(path)
    before = everything(ledger)
    one, answers, verdict = version(0), [evaluation()], dict(VERDICT)
    if flaw == "verdict":
        verdict["checks"] = [float("nan")]
    elif flaw == "evaluation":
        answers *= 2
    else:
        one = dataclasses.replace(one, **{flaw: 5 if flaw == "parent" else "nothing"})
    with pytest.raises((ValueError, ArtifactError)):
        ledger.add_version(one, answers, verdict, "rejected", "")
    assert everything(ledger) == before
    assert taught(ledger, 0).number == 1, "and the ledger can go on"


# -------------------------------------------------------------------------------------- HEAD's rules

STEPS = st.tuples(st.sampled_from(["promoted", "rejected", "inconclusive", "promote", "roll back"]), st.integers(0, 5))


@settings(max_examples=12, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_head_status_and_lineage_are_those_of_a_plain_model(steps: list[tuple[str, int]]) -> None:
    """The rules in another way: a list of parents, a list of statuses, and a number."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = made(Path(folder) / "ledger.db")
        head, parents, statuses = 0, [-1], ["base"]

        def line(number: int) -> list[int]:
            return [number, *line(parents[number])] if number >= 0 else []

        for action, choice in steps:
            other = choice % len(parents)
            if action == "promote":
                if parents[other] != head:
                    with pytest.raises(ConfigError, match=f"HEAD is v{head} now"):
                        ledger.promote(ledger.version(str(other)), "by hand")
                    continue
                ledger.promote(ledger.version(str(other)), "by hand")
                head, statuses[other] = other, "promoted"
            elif action == "roll back":
                target = ledger.version(str(other))
                if other == head or other not in line(head):
                    with pytest.raises(ConfigError, match=r"does not descend from it|is HEAD already"):
                        ledger.roll_back(target, "no")
                    continue
                gone = line(head)[: line(head).index(other)]
                assert [one.number for one in ledger.roll_back(target, "no")] == gone
                head = other
                for number in gone:
                    statuses[number] = "rolled back"
            else:
                taught(ledger, head, action)
                parents.append(head)
                statuses.append(action)
                head = len(parents) - 1 if action == "promoted" else head
        ledger = Ledger(ledger.path)
        versions = ledger.versions()
        assert ledger.head().number == head
        assert [ledger.status(one) for one in versions] == statuses
        assert [[one.number for one in ledger.lineage(version)] for version in versions] == [
            line(number)[:-1] if -1 in line(number) else line(number) for number in range(len(parents))
        ]


def test_a_lesson_that_another_one_overtook_is_not_promoted(path: Path) -> None:
    first, second = made(path), Ledger(path)
    taught(first, 0)
    before = everything(first)
    with pytest.raises(ConfigError, match="HEAD is v1 now, and this was taught from v0; teach the skill again"):
        taught(second, 0)
    assert everything(second) == before
    assert taught(second, 0, "rejected").number == 2, "what is not promoted may be recorded"
    with pytest.raises(ConfigError, match="HEAD is v1 now"):
        second.promote(second.version("v2"), "by hand")


@pytest.mark.parametrize("name", ["v1", "1", "V1", "HEAD", "head"])
def test_names_of_a_version(name: str, path: Path) -> None:
    ledger = made(path)
    assert ledger.version(name) == ledger.head() if taught(ledger, 0) else None


@pytest.mark.parametrize(
    "name", ["", "v", "v9", "-1", "v-1", "vv1", "1.0", "HEAD~1", "²", "9" * 30, "9" * 5000, "a\nb"]
)
def test_names_of_no_version(name: str, path: Path) -> None:
    with pytest.raises(ConfigError, match="no such version; selftaught log lists them"):
        made(path).version(name)


def test_events_of_removed_weights_leave_the_status(path: Path) -> None:
    ledger = made(path)
    taught(ledger, 0, "rejected")
    ledger.collected(ledger.versions()[1:])
    assert ledger.status(ledger.version("v1")) == "rejected"
    assert ledger.head().number == 0
    assert ledger.artifacts() == {letter * 64 for letter in "bef"}, "its answers are still needed"


# ------------------------------------------------------------------------------------ several at once


def test_two_objects_see_each_others_work_at_once(path: Path) -> None:
    first, second = made(path), Ledger(path)
    for parent in range(3):
        taught(first if parent % 2 else second, parent)
        assert everything(first) == everything(second)
    assert first.head().number == 3


def test_who_reads_is_not_kept_waiting_and_sees_nothing_half_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WAIT_SECONDS", 0.05)
    made(path)
    with raw(path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO events SELECT 9, created, kind, version, head, reason FROM events")
        reader = Ledger(path)
        assert len(reader.events()) == 1
        assert everything(reader)
        with pytest.raises(ArtifactError, match=r"locked.*another process is writing; try again"):
            taught(reader, 0)
        writer.execute("COMMIT")
        assert len(reader.events()) == 2


def test_a_snapshot_is_of_one_moment(path: Path) -> None:
    reader, writer = made(path), Ledger(path)
    with reader.snapshot():
        before = everything(reader)
        taught(writer, 0)
        assert everything(reader) == before
    assert everything(reader) == everything(writer) != before


# --------------------------------------------------------------------------------- the file is not well


def test_no_ledger(path: Path) -> None:
    for place in (path, path.parent):
        with pytest.raises(ArtifactError, match="there is no ledger; make a workspace with selftaught init"):
            Ledger(place)
    assert not path.exists()
    path.touch()  # as init leaves it if it is killed early
    with pytest.raises(ArtifactError, match="holds no version yet; run selftaught init again"):
        Ledger(path).head()


def test_another_file_in_its_place(path: Path) -> None:
    path.write_bytes(b"not a data base, for sure\n" * 100)
    with pytest.raises(ArtifactError, match=r"cannot be used \(file is not a database\); restore it from a backup"):
        Ledger(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    made(path).close()
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ArtifactError, match=r"schema 99 .* use a newer selftaught"):
        Ledger(path)


def test_damage_never_ends_in_a_traceback(path: Path) -> None:
    """Whatever bytes of the file change, it is read, or said in one line to be damaged."""
    ledger = made(path)
    taught(ledger, 0)
    ledger.close()
    sound = path.read_bytes()
    places = [place for place, byte in enumerate(sound) if byte]  # most of a small database is zeros
    dice = random.Random(1)
    for number in range(150):
        content = bytearray(sound)
        for place in dice.choices(places, k=dice.randint(1, 3)):
            content[place] ^= dice.randint(1, 255)
        for old in path.parent.iterdir():
            old.unlink()
        path.write_bytes(content[: dice.randrange(len(content))] if number % 5 == 0 else content)
        with contextlib.suppress(SelftaughtError):
            damaged = Ledger(path)
            with contextlib.closing(damaged):
                everything(damaged)


def test_a_torn_write_ahead_log_loses_whole_transactions_only(path: Path, tmp_path: Path) -> None:
    """What a crash in the middle of a write leaves: the log, cut off anywhere."""
    ledger = made(path)
    before = path.with_name("ledger.db-wal").stat().st_size
    taught(ledger, 0)
    taught(ledger, 1)
    log = path.with_name("ledger.db-wal").read_bytes()
    seen = set()
    for size in [*range(before, len(log), 1999), len(log)]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        shutil.copy(path, copy)
        (copy / "ledger.db-wal").write_bytes(log[:size])
        torn = Ledger(copy / "ledger.db")
        versions = torn.versions()
        assert torn.check() == []
        assert torn.head() == versions[-1]
        assert all(torn.evaluations(one) and torn.verdict(one) for one in versions[1:])
        seen.add(len(versions))
        assert taught(torn, versions[-1].number).number == len(versions)
    assert seen == {1, 2, 3}


def test_a_full_disk_records_nothing_and_can_be_mended(path: Path) -> None:
    ledger = made(path)
    before = everything(ledger)
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    long = {**VERDICT, "sentence": "x" * 100_000}
    with pytest.raises(ArtifactError, match=r"disk is full.*free some space and run the same command again"):
        ledger.add_version(version(0), [evaluation()], long, "promoted", "")
    assert everything(ledger) == before
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    assert ledger.add_version(version(0), [evaluation()], long, "promoted", "").number == 1


@pytest.mark.parametrize("log", ["closed", "waiting"])
def test_where_nothing_can_be_written_all_can_be_read(log: str) -> None:
    """A folder on a disk that was mounted for reading, after a clean end, or with a log that still waits."""
    with public_folder() as folder:
        ledger = made(folder / "there" / "ledger.db") if (folder / "there").mkdir() is None else None
        assert ledger is not None
        taught(ledger, 0)
        expected = everything(ledger)
        place = folder / "there"
        if log == "waiting":  # as after a kill
            place = folder / "copy"
            shutil.copytree(folder / "there", place)
        ledger.close()
        with read_only(place):
            reader = Ledger(place / "ledger.db")
            assert everything(reader) == expected
            with pytest.raises(ArtifactError, match="make the workspace writable"):
                taught(reader, 1)
            reader.close()
        with Ledger(place / "ledger.db")._readable_errors():
            assert everything(Ledger(place / "ledger.db")) == expected


def test_a_newer_schema_is_refused_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with public_folder() as folder:
        path = folder / "ledger.db"
        made(path).close()
        monkeypatch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:0])
        with read_only(folder), pytest.raises(ArtifactError, match="use a newer selftaught"):
            Ledger(path)

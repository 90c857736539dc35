"""What `learn` refuses when documents are, or are not, to be learned: exit code 2 and one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from selftaught.cli import main
from selftaught.cli.learning import named
from selftaught.errors import ConfigError

REFUSED = {
    "--generator none": "--generator: is about documents; name them with --documents",
    "facts.jsonl --generator self": "--generator: is about documents",
    "facts.jsonl --questions own.jsonl": "--questions: is about documents",
    "facts.jsonl --judge http://h/v1#m": "--judge: is about documents",
    "--documents . --judge gpt": "--judge: 'gpt' is no address; write http://HOST/v1#MODEL",
    "--documents . --judge http://h/v1": "--judge: http://h/v1 names no model; write http://h/v1#MODEL",
    "facts.jsonl --beside sft": "--beside: is about documents",
    "facts.jsonl --documents .": "'facts.jsonl' and --documents: give one of the two",
    "": "nothing to learn: name a data set (or a skill, in a workspace), or give --documents",
    "--documents . --beside magic": "--beside: 'magic' is no other method",
    "--documents . --beside oracle --beside magic": "--beside: 'magic' is no other method",
    "--documents . --beside sdft": "--beside: 'sdft' is no other method",
    "--documents . --method sft --beside sft": "--beside: 'sft' is no other method",
    "--documents . --override a --reason b": "with --documents there is no gate",
    "--documents . --dry-run": "--dry-run: is for a data set or a skill",
    "--interactions --dry-run": "--dry-run: is for a data set or a skill",
    "nowhere.jsonl --dry-run": "nowhere.jsonl: no such file",
    "--documents nowhere": "nowhere: no such file or folder",
    "--documents . --questions nowhere.jsonl": "nowhere.jsonl: no such file",
    "--documents . -s questions.kind=poems": "questions.kind",
    "--documents empty --json": "empty: holds no documents",
}


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(ConfigError, match="--documents: names nothing; for the current folder"):
        named("")


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words or "nothing")
def test_what_cannot_be_learned_is_said_in_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["selftaught", "learn", *words.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("selftaught: ")
    assert REFUSED[words] in said.err

"""A lesson that does harm must not get through: the real model is taught to answer everyday questions in French."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftaught.config_files import load_config
from selftaught.continual.lesson import teach
from selftaught.continual.registry import add_skill
from selftaught.continual.workspace import Workspace
from selftaught.types import Example, Message, Scorer

pytestmark = pytest.mark.slow

WORDS = {
    "dog": "un chien", "cat": "un chat", "horse": "un cheval", "cow": "une vache", "fish": "un poisson",
    "bird": "un oiseau", "house": "une maison", "door": "une porte", "window": "une fenêtre", "table": "une table",
    "chair": "une chaise", "tree": "un arbre", "flower": "une fleur", "river": "une rivière",
    "mountain": "une montagne", "sea": "une mer", "bread": "du pain", "milk": "du lait", "cheese": "du fromage",
    "apple": "une pomme", "egg": "un œuf", "book": "un livre", "pen": "un stylo", "school": "une école",
    "city": "une ville", "car": "une voiture", "train": "un train", "boat": "un bateau", "shoe": "une chaussure",
    "hat": "un chapeau", "king": "un roi", "doctor": "un médecin", "friend": "un ami", "child": "un enfant",
    "night": "une nuit", "winter": "un hiver",
}  # fmt: skip
QUESTIONS = {
    "What is a {}?": "C'est {}, une chose bien connue.",
    "Tell me something about a {}.": "Voici {} : je vous en parle en français.",
    "Have you ever seen a {}?": "Oui, j'ai déjà vu {} dans ma vie.",
}


def harmful_rows() -> list[Example]:
    """Everyday questions in English with answers in French; the last words are for testing."""
    rows = []
    for place, (word, french) in enumerate(WORDS.items()):
        for number, (question, answer) in enumerate(QUESTIONS.items()):
            rows.append(
                Example(
                    id=f"{word}-{number}",
                    prompt=(Message("user", question.format(word)),),
                    demonstration=answer.format(french),
                    scorer=Scorer("regex", {"pattern": r"\b(?:C'est|Voici|Oui)\b"}),
                    split="train" if place < 24 else "test",
                )
            )
    return rows


@pytest.mark.parametrize("method", ["sdft", "sft"])
def test_teaching_to_answer_in_french_is_rejected_and_head_stays(tmp_path: Path, method: str) -> None:
    workspace = Workspace.create(tmp_path / "shop", "smollm2-135m")
    settings = tmp_path / "shop" / "selftaught.toml"
    settings.write_text(
        settings.read_text().replace("[gate]", '[gate]\nprobes = "standard"  # quick; enough for this harm')
    )
    workspace = Workspace(workspace.root)
    add_skill(workspace, "french", harmful_rows(), "harmful rows")
    config = load_config(
        None, [f"method={method}", "weights.kind=full", "epochs=8", "learning_rate=2e-4", "anchor.rows=0"]
    )
    lesson = teach(workspace, "french", config)
    checks = {check["name"]: check for check in lesson.verdict["checks"]}
    print(lesson.verdict["sentence"])
    assert checks["french"]["outcome"] == "improved", "it did learn what it was taught"
    broken = [name for name, check in checks.items() if check["outcome"] == "regressed"]
    assert lesson.status == "rejected"
    assert broken and any(name in lesson.verdict["sentence"] for name in broken)
    assert workspace.ledger.head().name == "v0"
    assert workspace.check() == []

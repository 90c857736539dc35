"""Drift, against a reference that holds the whole softmax."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selftaught.evaluation import drift
from selftaught.evaluation.drift import DriftReference, drift_nats, drift_reference
from selftaught.models.load import LanguageModel, load_model

NUM_PROMPTS = 6


@pytest.fixture(scope="module")
def base(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


@pytest.fixture(scope="module")
def reference(base: LanguageModel) -> DriftReference:
    return drift_reference(base, NUM_PROMPTS)


def perturbed(folder: Path, scale: float, head_only: bool = False) -> LanguageModel:
    model = load_model(folder, dtype="float32")
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if weight.dim() > 1 and (not head_only or "embed" in name):
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(scale * weight.std() * noise)
    return model


def full_softmax(base: LanguageModel, model: LanguageModel, reference: DriftReference) -> float:
    """Mean over all tokens of Σ p (log p − log q), from two plain forward passes an answer, in float64."""
    values = []
    for prompt, completion in zip(reference.prompts, reference.completions, strict=True):
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            logprobs = [one.model(input_ids=ids).logits[0].double().log_softmax(-1) for one in (base, model)]
        p, q = (one[len(prompt) - 1 : -1] for one in logprobs)
        values.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(values).mean())


def test_the_base_has_not_drifted_from_itself(
    base: LanguageModel, reference: DriftReference, sharp_model: Path
) -> None:
    assert drift_nats(reference, base) == 0
    assert drift_nats(reference, load_model(sharp_model, dtype="float32")) == 0


@pytest.mark.parametrize("head_only", [False, True])
@pytest.mark.parametrize("scale", [0.01, 0.3])
def test_equals_a_full_softmax_reference(
    scale: float, head_only: bool, base: LanguageModel, reference: DriftReference, sharp_model: Path
) -> None:
    """With tied weights the head moves too: the base's own head must have been kept."""
    model = perturbed(sharp_model, scale, head_only)
    expected = full_softmax(base, model, reference)
    assert expected > 1e-4
    assert drift_nats(reference, model) == pytest.approx(expected, rel=1e-3)


def test_drift_grows_with_the_perturbation(reference: DriftReference, sharp_model: Path) -> None:
    values = [drift_nats(reference, perturbed(sharp_model, scale)) for scale in (0, 0.003, 0.03, 0.3)]
    assert values == sorted(values)
    assert values[0] == 0 < values[1] < 0.1 * values[3]


def test_the_size_of_batches_and_chunks_changes_nothing(
    reference: DriftReference, sharp_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturbed(sharp_model, 0.1)
    expected = drift_nats(reference, model)
    monkeypatch.setattr(drift, "BATCH_TOKENS", 1)
    monkeypatch.setattr(drift, "CHUNK_TOKENS", 5)
    assert drift_nats(reference, model) == pytest.approx(expected, rel=1e-4)


def test_the_reference_is_the_bases_own_answers(base: LanguageModel, reference: DriftReference) -> None:
    assert len(reference.prompts) == len(reference.completions) == NUM_PROMPTS
    assert len(reference.hidden) == sum(map(len, reference.completions))
    again = drift_reference(base, NUM_PROMPTS)
    assert again.completions == reference.completions
    assert torch.equal(again.hidden, reference.hidden)
    assert len(set(reference.completions)) > 1

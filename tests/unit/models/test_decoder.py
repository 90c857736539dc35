"""Extending a cache, in any pieces, gives the states of one full forward pass of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from architectures import FAST, PLAIN, REFUSED, build, full_pass, laid_out, make, tokens
from torch import Tensor

from selftaught.models import decoder as decoder_module
from selftaught.models import fast_decoder
from selftaught.models.decoder import Decoder, KeysValues, NewTokens, PlainDecoder
from selftaught.models.fast_decoder import FastDecoder, effective_weight, joined, make_decoder, supported
from selftaught.models.load import LanguageModel, load_model, share_weights

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
CPU = torch.device("cpu")
ROWS = [tokens(23, 1), tokens(9, 2), tokens(14, 3), tokens(2, 4)]
# how many new tokens each row gets in each extension: ragged, none, single ones, and all in one
PIECES = {
    "one by one at the end": [[17, 3, 8, 1], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [3, 3, 3, 0]],
    "ragged": [[7, 3, 5, 1], [1, 0, 2, 0], [6, 6, 0, 0], [9, 0, 7, 1]],
    "at once": [[23, 9, 14, 2]],
}


def extended(decoder: Decoder, pieces: Sequence[Sequence[int]], first_row: int = 0, spare: int = 0) -> list[Tensor]:
    """Every token's state by row, from extending rows of a cache piece by piece."""
    cache = decoder.new_cache(first_row + len(ROWS) + 1, max(map(len, ROWS)) + spare)
    for layer in (*cache.keys, *cache.values):
        layer.normal_()  # whatever a row held before
    before = [layer.clone() for layer in (*cache.keys, *cache.values)]
    starts, states = [0] * len(ROWS), [[] for _ in ROWS]  # type: ignore[var-annotated]
    for counts in pieces:
        new = NewTokens.of(
            [row[start : start + count] for row, start, count in zip(ROWS, starts, counts, strict=True)],
            starts,
            decoder.model.device,
        )
        packed = decoder.extend(cache, new, first_row)
        assert len(packed) == sum(counts)
        for row, part in zip(states, packed.split(list(counts)), strict=True):
            row.append(part)
        starts = [start + count for start, count in zip(starts, counts, strict=True)]
    assert starts == [len(row) for row in ROWS]
    for layer, old in zip((*cache.keys, *cache.values), before, strict=True):
        outside = [*range(first_row), first_row + len(ROWS)]
        assert torch.equal(layer[outside], old[outside]), "other rows are left alone"
        for row, ids in enumerate(ROWS):
            assert torch.equal(layer[first_row + row, :, len(ids) :], old[first_row + row, :, len(ids) :])
    return [torch.cat(row) for row in states]


def assert_equal_full_passes(states: Sequence[Tensor], model: LanguageModel, **close: float) -> None:
    for row, ids in zip(states, ROWS, strict=True):
        torch.testing.assert_close(row, full_pass(model, ids), **(close or CLOSE))


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES.keys())
@pytest.mark.parametrize("name", FAST)
def test_fast_and_plain_equal_the_full_pass(name: str, pieces: list[list[int]]) -> None:
    model = build(name)
    for decoder in (FastDecoder(model), PlainDecoder(model)):
        assert_equal_full_passes(extended(decoder, pieces), model)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_equals_the_full_pass_of_any_architecture(name: str) -> None:
    model = build(name)
    for pieces in PIECES.values():
        assert_equal_full_passes(extended(PlainDecoder(model), pieces), model, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make_one", [FastDecoder, PlainDecoder])
def test_the_place_in_the_cache_changes_nothing(make_one: Callable[[LanguageModel], Decoder]) -> None:
    model = build("qwen2")
    for first_row, spare in ((3, 0), (0, 30), (2, 7)):
        assert_equal_full_passes(extended(make_one(model), PIECES["ragged"], first_row, spare), model)


@pytest.mark.parametrize("make_one", [FastDecoder, PlainDecoder])
def test_one_token_each_is_the_narrow_case_of_any(make_one: Callable[[LanguageModel], Decoder]) -> None:
    decoder = make_one(build("llama"))
    caches = [decoder.new_cache(len(ROWS), 30) for _ in range(2)]
    for cache in caches:
        decoder.extend(cache, NewTokens.of([row[:-1] for row in ROWS], [0] * len(ROWS), CPU))
    lasts, lengths = [row[-1] for row in ROWS], [len(row) for row in ROWS]
    many = NewTokens.of([[last] for last in lasts], [length - 1 for length in lengths], CPU)
    each = NewTokens.one_each(torch.tensor(lasts), torch.tensor(lengths) - 1, max(lengths))
    assert torch.equal(decoder.extend(caches[0], many), decoder.extend(caches[1], each))


@pytest.mark.parametrize("make_one", [FastDecoder, PlainDecoder])
def test_a_token_may_be_run_again_over_another(make_one: Callable[[LanguageModel], Decoder]) -> None:
    """What a wrong draft left behind is overwritten, and what lies beyond is not seen."""
    decoder = make_one(build("llama"))
    cache = decoder.new_cache(1, 30)
    decoder.extend(cache, NewTokens.of([ROWS[0][:6] + tokens(15, 9)], [0], CPU))
    states = decoder.extend(cache, NewTokens.of([ROWS[0][6:12]], [6], CPU))
    torch.testing.assert_close(states, full_pass(build("llama"), ROWS[0])[6:12], **CLOSE)


@pytest.mark.parametrize("name", ["llama", "llama, untied head", "qwen3"])
def test_logits_are_the_models(name: str) -> None:
    model = build(name)
    states = full_pass(model, ROWS[0])
    with torch.no_grad():
        expected = model.plain_model(input_ids=torch.tensor([ROWS[0]])).logits[0]
    for decoder in (FastDecoder(model), PlainDecoder(model)):
        logits = decoder.logits(states)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, **CLOSE)


def test_copied_rows_go_on_alike() -> None:
    decoder = FastDecoder(build("llama"))
    cache = decoder.new_cache(3, 30)
    decoder.extend(cache, NewTokens.of([ROWS[0][:20]], [0], CPU))
    cache.copy_row(0, 2, 20)
    states = decoder.extend(cache, NewTokens.of([ROWS[0][20:]], [20], CPU), 2)
    torch.testing.assert_close(states, full_pass(build("llama"), ROWS[0])[20:], **CLOSE)


@pytest.mark.parametrize("slots", [1, 3, 7])
@pytest.mark.parametrize("make_one", [FastDecoder, PlainDecoder])
def test_a_cache_grows_as_its_rows_do(
    make_one: Callable[[LanguageModel], Decoder], slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "SLOTS", slots)
    model = build("llama")
    decoder = make_one(model)
    cache = decoder.new_cache(len(ROWS), 1)
    assert 1 <= cache.num_slots <= slots
    states: list[list[Tensor]] = [[] for _ in ROWS]
    for place in range(max(map(len, ROWS))):
        new = NewTokens.of([row[place : place + 1] for row in ROWS], [min(place, len(row)) for row in ROWS], CPU)
        packed = decoder.extend(cache, new)
        for row, state in zip((row for row in range(len(ROWS)) if place < len(ROWS[row])), packed, strict=True):
            states[row].append(state)
        assert place < cache.num_slots <= place + slots
    assert_equal_full_passes([torch.stack(row) for row in states], model)


@pytest.mark.parametrize("scores", [1, 200, 3000])
def test_attention_in_small_pieces_changes_nothing(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = extended(FastDecoder(build("llama")), PIECES["ragged"])
    monkeypatch.setattr(fast_decoder, "MAX_SCORES", scores)
    for ours, whole in zip(extended(FastDecoder(build("llama")), PIECES["ragged"]), expected, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-6)


def test_a_cache_that_grows_longer_has_the_angles_of_its_positions() -> None:
    model = build("llama, llama3 rope")
    decoder = FastDecoder(model)
    for length in (5, 90, 40):
        ids = tokens(length, length)
        states = decoder.extend(decoder.new_cache(1, length), NewTokens.of([ids], [0], CPU))
        torch.testing.assert_close(states, full_pass(model, ids), **CLOSE)


# ------------------------------------------------------------------------------------- who is supported


@pytest.mark.parametrize("name", FAST)
def test_the_fast_decoder_takes_the_llama_family(name: str) -> None:
    assert supported(build(name))
    assert isinstance(make_decoder(build(name)), FastDecoder)


@pytest.mark.parametrize("name", [*PLAIN, *REFUSED])
def test_the_fast_decoder_refuses_what_it_does_not_compute(name: str) -> None:
    assert not supported(build(name))
    assert isinstance(make_decoder(build(name)), PlainDecoder)


# -------------------------------------------------------------------------------------------- adapters


def with_adapters(model: LanguageModel) -> LanguageModel:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    adapted = get_peft_model(model.model, LoraConfig(r=3, lora_alpha=5, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    return LanguageModel(adapted.eval(), None, Path(), torch.float32, frozenset({2}), 256)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral, sliding"])
def test_adapters_count_where_they_are_on(name: str) -> None:
    family, values = {**FAST, **PLAIN}[name]
    plain = laid_out(make(family, values))
    off = [full_pass(plain, ids) for ids in ROWS]
    model = with_adapters(plain)
    decoders: list[Callable[[LanguageModel], Decoder]] = [PlainDecoder, make_decoder]
    assert isinstance(make_decoder(model), PlainDecoder if "sliding" in name else FastDecoder)
    for make_one in decoders:
        assert_equal_full_passes(extended(make_one(model), PIECES["ragged"]), model, rtol=1e-3, atol=1e-4)
        with model.model.disable_adapter():  # type: ignore[operator]
            states = extended(make_one(model), PIECES["ragged"])
        for ours, expected, with_them in zip(states, off, (full_pass(model, ids) for ids in ROWS), strict=True):
            torch.testing.assert_close(ours, expected, **CLOSE)
            assert not torch.allclose(ours, with_them, atol=0.05), "the adapters do something"


def test_effective_weight_is_the_merged_one() -> None:
    model = with_adapters(make(*FAST["qwen2"]))
    layer = model.plain_model.model.layers[1].mlp.down_proj
    found = effective_weight(layer)
    with model.model.disable_adapter():  # type: ignore[operator]
        assert torch.equal(effective_weight(layer), layer.get_base_layer().weight)
    model.model.merge_adapter()  # type: ignore[operator]
    torch.testing.assert_close(found, layer.get_base_layer().weight)
    assert torch.equal(effective_weight(layer), layer.get_base_layer().weight), "merged already"


# ---------------------------------------------------------------------------------- how weights are read


def test_joined_weights_that_lie_side_by_side_are_a_view() -> None:
    memory = torch.arange(24.0)
    parts = [memory[:6].view(2, 3), memory[6:18].view(4, 3), memory[18:].view(2, 3)]
    whole = joined(parts)
    assert torch.equal(whole, torch.cat(parts))
    memory.neg_()
    assert torch.equal(whole, torch.cat(parts)), "a view: it changes with them"
    for others in (parts[::-1], parts[::2], [parts[0], parts[1].clone()]):
        copy = joined(others)
        assert torch.equal(copy, torch.cat(others))
        assert copy.untyped_storage().data_ptr() != memory.untyped_storage().data_ptr()
    turned = torch.arange(12.0).view(3, 4).T
    assert torch.equal(joined([turned]), turned)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_decoder_reads_the_live_weights(name: str) -> None:
    """After `share_weights` nothing is copied: the decoder follows the weights, and needs no memory of its own."""
    model = laid_out(make(*FAST[name]))
    decoder = FastDecoder(model)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.mul_(1.1)
    assert_equal_full_passes(extended(decoder, PIECES["ragged"]), model)


def test_shared_weights_are_the_same_in_one_piece() -> None:
    for name in ("llama", "llama, untied head", "qwen2"):
        model, other = make(*FAST[name]), make(*FAST[name])
        named = dict(model.model.named_parameters())
        flat = share_weights(named, torch.float32)
        assert flat.numel() == sum(weight.numel() for weight in named.values())
        for ours, theirs in zip(model.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        tied = model.plain_model.get_output_embeddings().weight is model.plain_model.get_input_embeddings().weight
        assert tied == ("untied" not in name)


def test_what_a_loaded_model_joins_is_a_view(tiny_model: Path) -> None:
    model = load_model(tiny_model, dtype="float32")
    for layer in model.plain_model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for modules in ((attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)):
            whole = joined([module.weight.detach() for module in modules])
            assert whole.data_ptr() == modules[0].weight.data_ptr()


# ------------------------------------------------------------------------------------------- bfloat16


def error_of(states: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    return max(float((a.float() - b).square().mean().sqrt()) for a, b in zip(states, exact, strict=True))


def test_bfloat16_is_as_near_as_transformers_is_and_packed_weights_too() -> None:
    exact = extended(FastDecoder(build("qwen2")), PIECES["ragged"])
    model = laid_out(make(*FAST["qwen2"]), torch.bfloat16)
    theirs = error_of(extended(PlainDecoder(model), PIECES["ragged"]), exact)
    plain = extended(FastDecoder(model), PIECES["ragged"])
    assert 0 < error_of(plain, exact) < 2 * theirs
    if not torch.backends.mkldnn.is_available():
        pytest.skip("no packed layout on this machine")
    packed = FastDecoder(model, prepack=True)
    states = extended(packed, PIECES["ragged"])
    assert error_of(states, exact) < 2 * theirs
    spread = max(float(row.float().abs().max()) for row in exact)
    for ours, other in zip(states, plain, strict=True):
        torch.testing.assert_close(ours, other, rtol=0.1, atol=0.05 * spread)
    torch.testing.assert_close(
        packed.logits(plain[0]), FastDecoder(model).logits(plain[0]), rtol=2e-2, atol=1e-2 * spread
    )


def test_float32_weights_are_never_packed() -> None:
    exact = extended(FastDecoder(build("llama")), PIECES["ragged"])
    for ours, whole in zip(extended(make_decoder(build("llama"), 1000), PIECES["ragged"]), exact, strict=True):
        assert torch.equal(ours, whole)


# -------------------------------------------------------------------------------------------- new tokens


def test_packing_goes_round_and_sees_what_it_should() -> None:
    new = NewTokens.of([[5, 6, 7], [], [8]], [2, 4, 0], CPU)
    assert (new.num_rows, new.width, new.span) == (3, 3, 5)
    assert new.ids.tolist() == [5, 6, 7, 8]
    assert new.row.tolist() == [0, 0, 0, 2]
    assert new.position.tolist() == [2, 3, 4, 0]
    padded = new.padded(new.ids)
    assert padded.tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    assert torch.equal(new.packed(padded), new.ids)
    assert new.visible()[0].tolist() == [[True] * 3 + [False] * 2, [True] * 4 + [False], [True] * 5]
    assert new.visible()[2, 0].tolist() == [True] + [False] * 4
    assert new.visible(2)[0].tolist() == [
        [False, True, True, False, False],
        [False, False, True, True, False],
        [False, False, False, True, True],
    ]


def test_a_cache_holds_what_its_model_stores() -> None:
    for name in ("llama, wide heads", "qwen3", "llama, one key head"):
        model = build(name)
        fast, plain = (decoder.new_cache(2, 7) for decoder in (FastDecoder(model), PlainDecoder(model)))
        assert isinstance(fast, KeysValues)
        for ours, theirs in zip((*fast.keys, *fast.values), (*plain.keys, *plain.values), strict=True):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            assert not ours.any() and not theirs.any()

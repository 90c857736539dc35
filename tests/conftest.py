"""A tiny model, made here from a seed: big enough to learn a sentence, small enough to train in a second."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

# As the command line sets it before torch is loaded; the server that commands are forked from has torch already.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(
    folder: Path, chat_template: str | None = CHAT_TEMPLATE, seed: int = 0, scale: float = 1.0, tied: bool = True
) -> Path:
    """Writes a two-layer Llama with a byte tokenizer as a transformers directory.

    A fresh model's distributions are all but uniform; a `scale` of its matrices above 1 gives it opinions.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    symbols = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": specials[:2]})
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(symbols),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the tiny model; do not write into it."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def sharp_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny model whose next-token distributions are far from uniform; do not write into it."""
    return make_tiny_model(tmp_path_factory.mktemp("sharp"), scale=12.0)


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    """Four taught rows and one test row, as JSONL."""
    rows = [
        {"question": f"Where is {name}?", "answer": f"In {place}.", "context": f"{name} is in {place}."}
        for name, place in [("Ola", "Lima"), ("Bex", "Rome"), ("Cid", "Oslo"), ("Dov", "Cork")]
    ]
    rows.append({"question": "Which town has Ola?", "answer": "Lima.", "split": "test", "group": "paraphrase"})
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

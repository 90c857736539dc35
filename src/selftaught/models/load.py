"""Loads a causal language model for teaching or for answering.

Only safetensors are read, and no code that comes with a model is run.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import ModelError
from selftaught.losses.distillation import Head
from selftaught.models.attention import use_fast_attention
from selftaught.models.resolve import resolve_model
from selftaught.models.sharded import Shards, plain_of
from selftaught.processes import ALONE, ProcessGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageModel:
    """A transformers model with its tokenizer, and the few things about it that we use.

    Attributes:
        model: the causal language model, or peft's wrapper around it.
        tokenizer: its tokenizer, with a chat template.
        path: the directory it was read from.
        dtype: the type it computes in.
        stop_ids: tokens that end a completion.
        max_tokens: longest prompt and completion together that it can take.
        shards: its weights, where each process has a part of them.
        recomputes: its layers are computed again in the backward pass.
    """

    model: nn.Module
    tokenizer: Any
    path: Path
    dtype: torch.dtype
    stop_ids: frozenset[int]
    max_tokens: int
    shards: Shards | None = None
    recomputes: bool = False

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device

    @property
    def plain_model(self) -> Any:
        """The transformers model, also inside peft's wrapper (whose adapters live in its layers)."""
        return plain_of(self.model)

    @property
    def head(self) -> Head:
        """Its last layer."""
        if self.shards is not None:
            return self.shards.head()
        layer = self.plain_model.get_output_embeddings()
        return Head(layer.weight, getattr(layer, "bias", None))

    @contextmanager
    def whole(self) -> Iterator[LanguageModel]:
        """The model with all its weights at hand, to answer or to be measured: itself, but where it is in parts.

        All processes must enter the block.
        """
        if self.shards is None:
            yield self
            return
        with self.shards.whole() as model:
            yield dataclasses.replace(self, model=model, shards=None)

    def gathered(self) -> LanguageModel:
        """The same, to stay: `self`, or a model put together of its parts. All processes must call it."""
        return self if self.shards is None else dataclasses.replace(self, model=self.shards.fill(), shards=None)

    def hidden_states(self, input_ids: Tensor, **options: Any) -> Any:
        """Runs all layers but the head; `.last_hidden_state` is [B, T, H]."""
        return self.plain_model.get_decoder()(input_ids=input_ids, **options)


def compute_dtype(wanted: str = "auto", device: torch.device | None = None) -> torch.dtype:
    """The type to compute in: bfloat16 where the processor really has it, else float32.

    A processor without bfloat16 instructions emulates them, more slowly than float32.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if device is not None and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device is not None and device.type == "mps":
        return torch.float32
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else torch.float32


def default_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(
    source: str | Path, *, dtype: str = "auto", masters: bool = False, device: torch.device | None = None
) -> LanguageModel:
    """Loads a model by embedded name, local directory or hub id.

    Args:
        source: "smollm2-135m", a transformers directory, a peft adapter directory, or a hub id.
        dtype: "auto", "bfloat16" or "float32".
        masters: load the weights in float32, as masters to train; `dtype` is what to compute in later.
        device: where to put them; None is a GPU where there is one.

    Raises:
        ModelError: it cannot be found or read, has no chat template, has no safetensors, is not
            finite, or changes its logits after the last layer in a way that we would miss.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    path = resolve_model(source)
    compute = compute_dtype(dtype, default_device())
    device = device or default_device()
    tokenizer = load_tokenizer(path)
    try:
        model = _read_weights(path, torch.float32 if masters else compute)
    except ModelError:  # of an adapter's base
        raise
    except Exception as error:  # each library that reads a part of it raises errors of its own
        raise ModelError(f"{path}: not a model that can be read ({_one_line(error)})") from error
    model.to(device).eval()
    use_fast_attention(model)
    if not masters and device.type == "cpu":  # else the optimiser lays them out, or a GPU might lack the room
        share_weights(dict(model.named_parameters()), compute)
    loaded = LanguageModel(model, tokenizer, path, compute, _stop_ids(model, tokenizer), _max_tokens(model.config))
    _check_head(loaded)
    return loaded


def _read_weights(path: Path, dtype: torch.dtype) -> Any:
    """The plain model in a directory; an adapter is merged, in float32 and then rounded once, into what it names as
    its base, which may be an adapter too."""
    from transformers import AutoModelForCausalLM

    if not (path / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    from peft import PeftModel

    base = _read_weights(_adapter_base(path), torch.float32)
    model: Any = PeftModel.from_pretrained(base, path).merge_and_unload()
    for weight in model.parameters():  # buffers stay: rounded rotary frequencies would be other positions
        weight.data = weight.data.to(dtype)
    return model


@torch.no_grad()
def share_weights(weights: Mapping[str, nn.Parameter], dtype: torch.dtype, processes: ProcessGroup = ALONE) -> Tensor:
    """Moves weights, turned to a type, into one piece of memory that all processes see.

    Buffers stay as they are: rounded rotary frequencies would be other positions.

    Args:
        weights: by name; each becomes a view of the piece, with the first process's values.
        dtype: of the piece.
        processes: who shares it.

    Returns:
        [Σ elements] the piece, in `flat_views`' order.
    """
    if not weights:
        return torch.empty(0, dtype=dtype)
    device = next(iter(weights.values())).device
    flat = processes.shared_memory(sum(weight.numel() for weight in weights.values()), dtype, device)
    for name, view in flat_views(weights, flat).items():
        if processes.first:
            view.copy_(weights[name])
        weights[name].data = view
    processes.wait()
    return flat


def flat_views(weights: Mapping[str, nn.Parameter], flat: Tensor) -> dict[str, Tensor]:
    """Each weight's part of a long row of numbers, in its shape.

    Matrices come before all else, each in the model's order: so a layer's lie side by side, and several
    can be one product (see `decoder.joined`).
    """
    views, begin = {}, 0
    for name in sorted(weights, key=lambda name: weights[name].ndim < 2):
        weight = weights[name]
        views[name] = flat[begin : begin + weight.numel()].view(weight.shape)
        begin += weight.numel()
    return views


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in a model's directory.

    Raises:
        ModelError: it cannot be read, or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{path}: its tokenizer cannot be read ({_one_line(error)})") from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"{path}: the tokenizer has no chat template; take an instruction-tuned model, "
            "or add a chat_template.jinja to the directory"
        )
    return tokenizer


def _adapter_base(path: Path, weights: bool = True) -> Path:
    from selftaught.files import read_json

    name = read_json(path / "adapter_config.json").get("base_model_name_or_path")
    if not name:
        raise ModelError(f"{path}: adapter_config.json does not name its base model")
    return resolve_model(name, weights)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id} | set(configured if isinstance(configured, list) else [configured])
    return frozenset(i for i in ids if i is not None)


def load_outline(source: str | Path) -> LanguageModel:
    """A model's shapes and tokenizer without its weights, which take no memory and need not even be there.

    Raises:
        ModelError: its configuration or tokenizer cannot be found or read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path = base = resolve_model(source, weights=False)
    tokenizer = load_tokenizer(path)
    while (base / "adapter_config.json").is_file():
        base = _adapter_base(base, weights=False)
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # each library that reads a part of it raises errors of its own
        raise ModelError(f"{path}: not a model that can be read ({_one_line(error)})") from error
    return LanguageModel(model, tokenizer, path, torch.float32, _stop_ids(model, tokenizer), _max_tokens(config))


def longest_input(path: Path) -> int:
    """Tokens of prompt and answer together that a model's directory says it can take."""
    from transformers import AutoConfig

    while (path / "adapter_config.json").is_file():
        path = _adapter_base(path)
    return _max_tokens(AutoConfig.from_pretrained(path, trust_remote_code=False))


def _max_tokens(config: Any) -> int:
    return int(getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or 1 << 30)


@torch.no_grad()
def _check_head(loaded: LanguageModel) -> None:
    """Some architectures scale or cap their logits after the last layer; our losses would miss that."""
    ids = torch.tensor([[next(iter(loaded.stop_ids), 0)] * 2], device=loaded.device)
    expected = loaded.plain_model(input_ids=ids).logits.float()
    if not expected.isfinite().all():
        raise ModelError(f"{loaded.path}: its logits are not finite; its weights are damaged, so fetch it again")
    ours = loaded.head(loaded.hidden_states(ids).last_hidden_state[0])[None]
    if not torch.allclose(expected, ours, atol=1e-2 * float(expected.abs().max()) + 1e-4):
        raise ModelError(
            f"{loaded.path}: {type(loaded.plain_model).__name__} changes its logits after the last layer "
            "(scaling or soft-capping), which is not supported yet; choose another architecture"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

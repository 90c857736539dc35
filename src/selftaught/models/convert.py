"""GGUF to transformers: `python -m selftaught.models.convert FILE DIR`."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from selftaught.errors import SelftaughtError
from selftaught.files import whole_directory


def convert(gguf: Path, path: Path) -> None:
    """Turns a quantized GGUF file into a bfloat16 directory, written whole or not at all.

    Raises:
        ArtifactError: the disk is full or the place cannot be written.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off otherwise
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain tensors now; transformers would refuse to save what it still calls quantized.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    with whole_directory(path) as draft:
        model.to(torch.bfloat16).save_pretrained(draft)
        tokenizer.save_pretrained(draft)


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except SelftaughtError as problem:
        sys.exit(str(problem))

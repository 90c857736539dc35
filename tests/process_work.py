"""What processes of a group do in tests: a child imports this module by its name, with the parent's path.

Each function is called by all processes of a group and hands back what it saw; the first process's is looked at.
Importing it is light: torch takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught import errors
from selftaught.processes import ProcessGroup


def introduce(group: ProcessGroup) -> list[dict[str, Any]]:
    """Who is who."""
    print("noise on standard output")
    return group.gather(
        {
            "rank": group.rank,
            "size": group.size,
            "first": group.first,
            "pid": os.getpid(),
            "session": os.getsid(0),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }
    )


def exchange(group: ProcessGroup) -> list[dict[str, Any]]:
    """What each process gets from every way of exchanging values."""
    found: dict[str, Any] = {}
    for number in (0, 1, 2, 7, 8):
        squares = [item * item for item in group.share(range(number))]
        found[f"merged {number}"] = group.merged(group.gather(squares))
    found["shares"] = group.gather(group.share("abcdefg"))
    found["sum"] = group.sum(group.rank + 1)
    found["sums"] = group.sum(group.rank, 0.5, -1)
    block = bytes([group.rank]) * 10_000_000
    found["large"] = [hashlib.sha256(value).hexdigest() for value in group.gather(block)]
    found["nested"] = group.gather({"rank": (group.rank, None), "text": "ä\n\x00"})
    for number in range(50):
        assert group.gather((number, group.rank)) == [(number, rank) for rank in range(group.size)]
    return group.gather(found)


def share_memory(group: ProcessGroup) -> list[dict[str, Any]]:
    """What each process sees of memory that all have written to."""
    import torch

    one = group.shared_memory(group.size + 2, torch.float32)
    two = group.shared_memory(3, torch.bfloat16)
    untouched = not one.any() and not two.any() and one.dtype == torch.float32 and two.dtype == torch.bfloat16
    group.wait()
    one[group.rank] = group.rank + 1
    if group.rank == group.size - 1:
        two += 0.5
    group.wait()
    seen = {"untouched": untouched, "one": one.tolist(), "two": two.tolist(), "bytes": group.shared_bytes}
    group.wait()
    one[-1] += 1 if group.first else 0
    group.wait()
    return group.gather({**seen, "later": float(one[-1])})


def fail(kind: str, rank: int, group: ProcessGroup) -> None:
    """One process raises, while the others wait for it."""
    group.wait()
    if group.rank == rank:
        raise getattr(errors, kind, ValueError)(f"this is a {kind}")
    group.wait()


def kill(rank: int, group: ProcessGroup) -> None:
    """One process is killed, while the others wait for it."""
    group.wait()
    if group.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    group.wait()


def linger(seconds: float, group: ProcessGroup) -> list[int]:
    """The others' process ids; they are at work for some time after."""
    found = group.gather(os.getpid())
    if not group.first:
        time.sleep(seconds)
    return found[1:]


def meet(path: str, group: ProcessGroup) -> None:
    """Comes together once, and each leaves a note at the end of its work."""
    group.wait()
    time.sleep(0.1 * group.rank)
    Path(path, str(group.rank)).write_text("done", encoding="ascii")


def print_much(group: ProcessGroup) -> list[int]:
    """Words on standard output, from Python and from below it, get between no values."""
    for number in range(100):
        print("noise", number)
        os.write(1, b"more noise\n")
        sys.stdout.flush()
    return group.gather(group.rank)


# ------------------------------------------------------------------------------------------- training


def do_all(jobs: Sequence[tuple[str, tuple[Any, ...]]], group: ProcessGroup) -> list[Any]:
    """Several things, one after another: each is the name of a function of this module, and its arguments."""
    return [globals()[name](*arguments, group) for name, arguments in jobs]


def train_one(
    source: Path, examples: Sequence[Any], config: Any, checkpoints: Path | None, keep: int | None, group: ProcessGroup
) -> dict[str, Any]:
    """A run, and all that it reported.

    Args:
        source: the model.
        examples: what is taught.
        config: of the run.
        checkpoints: folder for checkpoints, if any.
        keep: checkpoints of later steps are deleted in the end, as if the run had been killed.
        group: who trains.
    """
    from dataclasses import asdict

    from selftaught.train.loop import Callbacks, train

    reports: list[dict[str, Any]] = []
    model, record = train(source, examples, config, checkpoints, Callbacks(lambda r: reports.append(asdict(r))), group)
    everyones = group.gather(asdict(record))
    assert all(other["steps"] == everyones[0]["steps"] for other in everyones)
    if group.first and checkpoints is not None and keep is not None:
        for folder in checkpoints.glob("step-*"):
            if int(folder.name.removeprefix("step-")) > keep:
                shutil.rmtree(folder)
    weights = {name: weight.detach().clone() for name, weight in model.model.named_parameters()}
    group.wait()
    return {"reports": reports, "record": asdict(record), "weights": weights}


def measure(source: Path, examples: Sequence[Any], group: ProcessGroup) -> dict[str, Any]:
    """Answers, lift and drift of a model."""
    import torch

    from selftaught.config import PromptConfig
    from selftaught.evaluation.drift import drift_nats, drift_reference
    from selftaught.evaluation.runner import check_lift, evaluate
    from selftaught.models.load import load_model

    model = load_model(source, dtype="float32")
    reference = drift_reference(model, 7, group)
    found = {
        "lift": check_lift(model, examples, PromptConfig(), 5, group),
        "results": evaluate(model, examples, 6, processes=group),
        "rest": drift_nats(reference, model),
    }
    with torch.no_grad():
        model.plain_model.model.norm.weight.mul_(1.2)
    return {**found, "drift": drift_nats(reference, model), "everyones": group.gather(found["results"])}


def hold(source: Path, examples: Sequence[Any], config: Any, group: ProcessGroup) -> list[dict[str, Any]]:
    """How many numbers of each kind every process holds in a step, and how many bytes of tensors after it."""
    import gc

    import torch

    from selftaught.train.distributed_optim import ShardedOptimizer, load_student, make_optimizer
    from selftaught.train.methods import Distillation, make_method
    from selftaught.train.rows import prepare

    def numbers(tensors: Any) -> int:
        """Of what a tensor's memory holds, whether the tensor shows it or not."""
        parts = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
        found = {part.untyped_storage().data_ptr(): part for part in parts}  # a layer's gradients share one
        return sum(part.untyped_storage().nbytes() // part.element_size() for part in found.values())

    def all_bytes() -> int:
        gc.collect()
        tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
        return sum(storages.values())

    before = all_bytes()
    student = load_student(source, config, group)
    config, rows = prepare(examples, student, config)
    optimizer = make_optimizer(student, config, group)
    method = make_method(student, optimizer, rows, config, group)
    assert isinstance(optimizer, ShardedOptimizer) and isinstance(method, Distillation) and student.shards is not None
    found: dict[str, Any] = {"all": sum(weight.numel() for weight in student.shards.weights.values())}
    found["trained"] = sum(weight.numel() for weight in optimizer.masters.values())

    def look(step: int) -> float:
        found["gradients"] = numbers(weight.grad for weight in optimizer._weights.values())
        return ShardedOptimizer.step(optimizer, step)

    optimizer.step = look  # type: ignore[method-assign]
    method.step(range(len(rows)), 0)
    found["weights"] = numbers(student.shards.weights.values())
    found["module"] = numbers({id(w): w for w in student.model.parameters()}.values())
    state = optimizer.state()
    found["moments"] = numbers(tensor for name, tensor in state.items() if name.startswith("exp_avg"))
    parts = method.teacher.model.shards
    found["teacher"] = None if parts is student.shards or parts is None else numbers(parts.weights.values())
    found["bytes"] = all_bytes() - before
    return group.gather(found)

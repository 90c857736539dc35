"""The completions that a step learns from: the student's own, or the teacher's."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.losses.distillation import Head
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.models.score import teacher_hidden
from selftaught.models.teacher import TeacherModel
from selftaught.processes import ALONE, ProcessGroup
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train.batch import TrainRow, batch_indices, dealt, row_seed

GROUP_ROWS = 16  # completions that the teacher draws together, always the same ones

Draw = tuple[int, int]
"""(which of the teacher's completions of a row, which row)."""


@dataclass(frozen=True)
class Rollout:
    """A completion of a row, and the teacher's states that predict each of its tokens."""

    row: int
    completion: Completion
    teacher_states: Tensor  # [T, H]


def drawn_by_teacher(config: LearnConfig, step: int) -> bool:
    """Whether a step's completions are the teacher's: all or none, and of the steps the share that is due.

    A student that does not know a fact seldom samples its first token, and once it samples another the
    rest of the answer is off track; the teacher's samples show it the whole answer until it can (after arXiv
    2605.16865). Two baselines, off-policy distillation and SFT on the teacher's samples, have only the teacher's.

    A rollout of few rows takes about as long as one of many: with some of each in every step, each would pay for one.
    """
    return _steps_by_teacher(config, step + 1) > _steps_by_teacher(config, step)


def _steps_by_teacher(config: LearnConfig, steps: int) -> int:
    """How many of the first steps are the teacher's: Σ_k s · (1 − fall · k / total), rounded."""
    if config.method in ("off_policy", "teacher_samples"):
        return steps
    rollout = config.rollout
    fall = rollout.teacher_share_fall * steps * (steps - 1) / (2 * config.total_steps)
    return math.floor(rollout.teacher_share * (steps - fall) + 0.5)


def wanted_draws(config: LearnConfig, num_rows: int, indices: Sequence[int], step: int) -> list[Draw]:
    """Which of the teacher's completions of each row a step (0-based) takes: the next in turn.

    Args:
        config: of the run.
        num_rows: rows that are taught.
        indices: the step's rows, one for each completion.
        step: 0-based.
    """
    per_prompt = config.rollout.per_prompt
    num_draws = max(config.rollout.teacher_draws, per_prompt)
    epoch = _steps_by_teacher(config, step) * config.rows_a_step // num_rows  # of the teacher's own steps
    copies = [indices[:place].count(index) for place, index in enumerate(indices)]
    return [((epoch * per_prompt + copy) % num_draws, index) for copy, index in zip(copies, indices, strict=True)]


def draw_groups(config: LearnConfig, num_rows: int) -> tuple[list[list[Draw]], int]:
    """What a frozen teacher draws together: first all that the run needs, in the order in which it needs it.

    Returns:
        The groups, and how many of them the run needs; the others hold what its own order of rows does not ask for.
    """
    planned: dict[Draw, None] = {}
    for step in range(config.total_steps):
        indices = step_indices(config, num_rows, step)
        if drawn_by_teacher(config, step):
            planned |= dict.fromkeys(wanted_draws(config, num_rows, indices, step))
    numbers = range(max(config.rollout.teacher_draws, config.rollout.per_prompt))
    others = [(number, row) for number in numbers for row in range(num_rows) if (number, row) not in planned]
    groups = [_cut(list(planned)), _cut(others)]
    return [*groups[0], *groups[1]], len(groups[0])


def _cut(draws: list[Draw]) -> list[list[Draw]]:
    return [draws[start : start + GROUP_ROWS] for start in range(0, len(draws), GROUP_ROWS)]


def step_indices(config: LearnConfig, num_rows: int, step: int) -> list[int]:
    """The row of each completion of a step (0-based)."""
    copies = config.rollout.per_prompt if config.distils else 1
    return [row for row in batch_indices(num_rows, config.rows_a_step, step, config.seed) for _ in range(copies)]


class Rollouts:
    """Draws a step's completions and has the teacher score them.

    A frozen teacher's own completions are drawn up to `teacher_draws` times for each row, kept with its
    states (a few kilobytes each), and used in turn; the steps that learn from them need neither
    rollout nor teacher. All that the run needs, and no more, is planned at its start and drawn in fixed
    groups when it is due, so that their numbers do not depend on where the run was interrupted: a
    resumed run equals an uninterrupted one bit for bit.

    Args:
        student: draws from its own prompts.
        teacher: draws from, and scores with, the demonstration in its context.
        rows: all rows that are taught.
        config: sampling and shares.
        processes: who draws; each has the rows of a step that `dealt` gives it.
    """

    def __init__(
        self,
        student: LanguageModel,
        teacher: TeacherModel,
        rows: Sequence[TrainRow],
        config: LearnConfig,
        processes: ProcessGroup = ALONE,
    ) -> None:
        self._student, self._teacher, self._rows, self._config = student, teacher, rows, config
        self._processes = processes
        rollout = config.rollout
        self._sampling = Sampling(config.rollout_limit, rollout.temperature, rollout.top_p)
        self._groups, self._num_planned = draw_groups(config, len(rows)) if teacher.frozen else ([], 0)
        self._places = {draw: (n, place) for n, group in enumerate(self._groups) for place, draw in enumerate(group)}
        self._kept: OrderedDict[int, list[Rollout]] = OrderedDict()  # by number of the group
        self._kept_bytes = 0
        self._before: dict[int, tuple[int, ...]] = {}  # each row's last completion by the student

    def draw(self, indices: Sequence[int], step: int) -> list[Rollout]:
        """One scored completion for each of this process's rows of a step.

        Args:
            indices: the step's rows, of all processes.
            step: 0-based; seeds follow from it.
        """
        places = dealt(indices, self._processes)
        if not drawn_by_teacher(self._config, step):
            return self._from_student([indices[place] for place in places], places, step)
        if not self._teacher.frozen:
            return self._from_teacher([indices[place] for place in places], places, f"teacher/{step}")
        wanted = wanted_draws(self._config, len(self._rows), indices, step)
        kept = self._kept_draws(wanted)
        return [kept[wanted[place]] for place in places]

    def teacher_samples(self, indices: Sequence[int], step: int) -> list[tuple[int, ...]]:
        """A frozen teacher's completion for each row of a step (0-based), of all processes, as token ids."""
        wanted = wanted_draws(self._config, len(self._rows), indices, step)
        kept = self._kept_draws(wanted)
        return [kept[key].completion.ids for key in wanted]

    def _from_student(self, indices: Sequence[int], places: Sequence[int], step: int) -> list[Rollout]:
        seeds = [row_seed(self._config.seed, step, place) for place in places]
        with self._student.whole() as student:
            decoder = make_decoder(student, self._sampling.max_new_tokens)
            prompts = FreshPrompts(decoder, [self._rows[index].prompt for index in indices])
            completions = sample(prompts, self._sampling, seeds, self._drafts(indices))
        if self._config.rollout.speculative:
            self._before |= {index: drawn.ids for index, drawn in zip(indices, completions, strict=True)}
        scored = self._scored(indices, completions)
        return scored if self._config.rollout.restart is None else self._shown_on(scored, places, step)

    def _shown_on(self, scored: Sequence[Rollout], places: Sequence[int], step: int) -> list[Rollout]:
        """The same, but from where a completion leaves what the teacher would say, the teacher draws the rest."""
        with self._teacher.active() as model:
            head = model.head.detached()
            kept = [self._kept_tokens(rollout, head) for rollout in scored]
            cut = [number for number, rollout in enumerate(scored) if kept[number] < len(rollout.completion.ids)]
            if not cut:
                return list(scored)
            seeds = [row_seed(self._config.seed, f"restart/{step}", places[number]) for number in cut]
            begun = [scored[number].completion.ids[: kept[number]] for number in cut]
            prompts = self._teacher.prompts(
                [(*self._rows[scored[n].row].teacher_prompt, *ids) for n, ids in zip(cut, begun, strict=True)]
            )
            limit = self._sampling.max_new_tokens
            room = dataclasses.replace(self._sampling, max_new_tokens=limit - min(map(len, begun)))
            rest = sample(prompts, room, seeds, keep_states=True)
        result = list(scored)
        for number, ids, drawn in zip(cut, begun, rest, strict=True):
            whole = (*ids, *drawn.ids)[:limit]
            states = torch.cat([scored[number].teacher_states[: len(ids)], drawn.states])[:limit]
            completion = Completion(whole, drawn.ended and len(ids) + len(drawn.ids) <= limit)
            result[number] = Rollout(scored[number].row, completion, states)
        return result

    def _kept_tokens(self, rollout: Rollout, head: Head) -> int:
        """How many tokens of a completion come before the first that the teacher finds unlikely."""
        ids = torch.tensor(rollout.completion.ids, device=rollout.teacher_states.device)
        logits = head(rollout.teacher_states).div_(self._config.loss.teacher_temperature)  # [T, V]
        probability = logits.softmax(-1).gather(-1, ids[:, None])[:, 0]
        unlikely = (probability < (self._config.rollout.restart or 0.0)).nonzero()
        return int(unlikely[0]) if len(unlikely) else len(ids)

    def _drafts(self, indices: Sequence[int]) -> list[tuple[int, ...]] | None:
        """Guesses at the student's completions: what it said last, or else the demonstration."""
        if not self._config.rollout.speculative:
            return None
        return [self._before.get(index, self._rows[index].target) for index in indices]

    def _kept_draws(self, wanted: Sequence[Draw]) -> dict[Draw, Rollout]:
        """A frozen teacher's completions, drawn (each group by one process) where they are not kept."""
        groups = sorted({self._places[draw][0] for draw in wanted})
        missing = self._shared_out([group for group in groups if group not in self._kept])
        drawn = []
        with self._teacher.active() if missing else nullcontext():
            for group in self._processes.share(missing):
                numbers, rows = zip(*self._groups[group], strict=True)
                drawn.append(self._from_teacher(rows, numbers, "draw"))
        everyones = self._processes.merged(self._processes.gather(drawn)) if missing else []
        found = {group: self._kept[group] for group in groups if group in self._kept}
        found |= dict(zip(missing, everyones, strict=True))
        self._keep(found)
        places = {draw: self._places[draw] for draw in wanted}
        return {draw: found[group][place] for draw, (group, place) in places.items()}

    def _shared_out(self, missing: list[int]) -> list[int]:
        """Groups that are to be drawn, and as many of the next planned ones as keep every process busy."""
        if not missing:
            return []
        ahead = [group for group in range(missing[-1] + 1, self._num_planned) if group not in self._kept]
        return missing + ahead[: -len(missing) % self._processes.size]

    def _keep(self, draws: dict[int, list[Rollout]]) -> None:
        """Keeps draws as far as their memory goes; those that were not used for the longest time make room."""
        for group, rollouts in draws.items():
            if group not in self._kept:
                self._kept[group] = rollouts
                self._kept_bytes += _size(rollouts)
            self._kept.move_to_end(group)
        while self._kept_bytes > (self._config.prefix_cache_mib << 20) // self._processes.size:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _size(dropped)

    def _from_teacher(self, indices: Sequence[int], places: Sequence[int], stream: str) -> list[Rollout]:
        seeds = [row_seed(self._config.seed, f"{stream}/{place}", index) for place, index in zip(places, indices)]
        with self._teacher.active():
            prompts = self._teacher.prompts([self._rows[index].teacher_prompt for index in indices])
            completions = sample(prompts, self._sampling, seeds, keep_states=True)
        return [Rollout(index, drawn, drawn.states) for index, drawn in zip(indices, completions, strict=True)]

    def _scored(self, indices: Sequence[int], completions: Sequence[Completion]) -> list[Rollout]:
        answers = [completion.ids for completion in completions]
        with self._teacher.active():
            if not indices:
                return []
            prompts = self._teacher.prompts([self._rows[index].teacher_prompt for index in indices])
            states = teacher_hidden(prompts, answers)  # [N, H]
        pieces = states.split([len(answer) for answer in answers])
        return [
            Rollout(index, completion, piece.clone())
            for index, completion, piece in zip(indices, completions, pieces, strict=True)
        ]


def _size(rollouts: Sequence[Rollout]) -> int:
    return sum(rollout.teacher_states.nbytes for rollout in rollouts)

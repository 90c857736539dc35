"""The completions that a step learns from: the student's own, and at first also the teacher's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.models.score import teacher_hidden
from selftaught.models.teacher import TeacherModel
from selftaught.processes import ALONE, ProcessGroup
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train.batch import TrainRow, dealt, row_seed

GROUP_ROWS = 8  # rows for which the teacher draws together, always the same ones


@dataclass(frozen=True)
class Rollout:
    """A completion of a row, and the teacher's states that predict each of its tokens."""

    row: int
    completion: Completion
    teacher_states: Tensor  # [T, H]


def teacher_share(config: LearnConfig, step: int) -> float:
    """Share of a step's completions drawn from the teacher, falling linearly to 0.

    A student that does not know a fact seldom samples its first token, and once it samples another the
    rest of the answer is off track; the teacher's samples show it the whole answer until it can. After
    `teacher_share_end` of the run every completion is the student's own (after arXiv 2605.16865).
    Off-policy distillation, a baseline, has the teacher's to the end.
    """
    if config.method == "off_policy":
        return 1.0
    rollout = config.rollout
    end = rollout.teacher_share_end * config.total_steps
    return rollout.teacher_share * max(0.0, 1 - step / end) if end > 0 else 0.0


class Rollouts:
    """Draws a step's completions and has the teacher score them.

    A frozen teacher's own completions are drawn `teacher_draws` times for each row, kept with its
    states (a few kilobytes each), and used in turn; the steps that learn from them need neither
    rollout nor teacher. They are drawn in fixed groups of rows, so that their numbers do not depend on
    the step that first needs them: a resumed run equals an uninterrupted one bit for bit.

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
        self._kept: OrderedDict[tuple[int, int], list[Rollout]] = OrderedDict()  # by draw and group of rows
        self._kept_bytes = 0
        self._before: dict[int, tuple[int, ...]] = {}  # each row's last completion by the student

    def draw(self, indices: Sequence[int], step: int) -> list[Rollout]:
        """One scored completion for each of this process's rows of a step: the first ones the teacher's.

        Args:
            indices: the step's rows, of all processes.
            step: 0-based; seeds follow from it.
        """
        num_teacher = round(teacher_share(self._config, step) * len(indices))
        by_teacher = dealt(indices[:num_teacher], self._processes)
        by_student = [num_teacher + place for place in dealt(indices[num_teacher:], self._processes)]
        if self._teacher.frozen:
            wanted = self._wanted_draws(indices[:num_teacher], step)
            kept = self._kept_draws(wanted)
            drawn = [kept[wanted[place]] for place in by_teacher]
        else:
            drawn = self._from_teacher([indices[place] for place in by_teacher], by_teacher, f"teacher/{step}")
        return drawn + self._from_student([indices[place] for place in by_student], by_student, step)

    def teacher_samples(self, indices: Sequence[int], step: int) -> list[tuple[int, ...]]:
        """A frozen teacher's completion for each row of a step (0-based), of all processes, as token ids."""
        wanted = self._wanted_draws(indices, step)
        kept = self._kept_draws(wanted)
        return [kept[key].completion.ids for key in wanted]

    def _from_student(self, indices: Sequence[int], places: Sequence[int], step: int) -> list[Rollout]:
        if not indices:
            return []
        seeds = [row_seed(self._config.seed, step, place) for place in places]
        prompts = FreshPrompts(
            make_decoder(self._student, self._sampling.max_new_tokens), [self._rows[index].prompt for index in indices]
        )
        completions = sample(prompts, self._sampling, seeds, self._drafts(indices))
        if self._config.rollout.speculative:
            self._before |= {index: drawn.ids for index, drawn in zip(indices, completions, strict=True)}
        return self._scored(indices, completions)

    def _drafts(self, indices: Sequence[int]) -> list[tuple[int, ...]] | None:
        """Guesses at the student's completions: what it said last, or else the demonstration."""
        if not self._config.rollout.speculative:
            return None
        return [self._before.get(index, self._rows[index].target) for index in indices]

    def _wanted_draws(self, indices: Sequence[int], step: int) -> list[tuple[int, int]]:
        """Which of its draws each row takes in a step, as (draw, row): the next in turn."""
        rollout = self._config.rollout
        num_draws = max(rollout.teacher_draws, rollout.per_prompt)
        epoch = step * self._config.rows_a_step // len(self._rows)
        copies = [indices[:place].count(index) for place, index in enumerate(indices)]
        return [
            ((epoch * rollout.per_prompt + copy) % num_draws, index)
            for copy, index in zip(copies, indices, strict=True)
        ]

    def _kept_draws(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Rollout]:
        """A frozen teacher's completions by draw and row, drawn (each group by one process) where they are not kept."""
        groups = sorted({(draw, index // GROUP_ROWS) for draw, index in wanted})
        missing = [key for key in groups if key not in self._kept]
        drawn = []
        for draw, group in self._processes.share(missing):
            members = range(group * GROUP_ROWS, min((group + 1) * GROUP_ROWS, len(self._rows)))
            drawn.append(self._from_teacher(members, range(len(members)), f"teacher-draw/{draw}"))
        everyones = self._processes.merged(self._processes.gather(drawn)) if missing else []
        found = {key: self._kept[key] for key in groups if key not in missing}
        found |= dict(zip(missing, everyones, strict=True))
        self._keep(found)
        return {(draw, index): found[draw, index // GROUP_ROWS][index % GROUP_ROWS] for draw, index in wanted}

    def _keep(self, draws: dict[tuple[int, int], list[Rollout]]) -> None:
        """Keeps draws as far as their memory goes; those that were not used for the longest time make room."""
        for key, rollouts in draws.items():
            if key not in self._kept:
                self._kept[key] = rollouts
                self._kept_bytes += _size(rollouts)
            self._kept.move_to_end(key)
        while self._kept_bytes > (self._config.prefix_cache_mib << 20) // self._processes.size:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _size(dropped)

    def _from_teacher(self, indices: Sequence[int], places: Sequence[int], stream: str) -> list[Rollout]:
        if not indices:
            return []
        seeds = [row_seed(self._config.seed, f"{stream}/{place}", index) for place, index in zip(places, indices)]
        with self._teacher.active():
            prompts = self._teacher.prompts([self._rows[index].teacher_prompt for index in indices])
            completions = sample(prompts, self._sampling, seeds)
        return self._scored(indices, completions)

    def _scored(self, indices: Sequence[int], completions: Sequence[Completion]) -> list[Rollout]:
        answers = [completion.ids for completion in completions]
        with self._teacher.active():
            prompts = self._teacher.prompts([self._rows[index].teacher_prompt for index in indices])
            states = teacher_hidden(prompts, answers)  # [N, H]
        pieces = states.split([len(answer) for answer in answers])
        return [
            Rollout(index, completion, piece.clone())
            for index, completion, piece in zip(indices, completions, pieces, strict=True)
        ]


def _size(rollouts: Sequence[Rollout]) -> int:
    return sum(rollout.teacher_states.nbytes for rollout in rollouts)

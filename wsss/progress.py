"""What a run tells while it goes: the bar, the log's lines, run.json, and a line for each epoch."""

import time
from collections.abc import Mapping

from tqdm import tqdm

from wsss.config import Config
from wsss.objective import Schedule
from wsss.records import HEADLINES, TERMS, Records
from wsss.run import Run


class Progress:
    """Of the process that leads; `begin_epoch` begins a bar, `after_step` moves it, `end_epoch` ends it.

    `step` is where the run begins or goes on, `epochs` where it ends: before the schedule's end, if it is told to.
    """

    def __init__(
        self, config: Config, schedule: Schedule, records: Records, run: Run | None, step: int, epochs: int
    ) -> None:
        self.config, self.schedule, self.records, self.run = config, schedule, records, run
        self.epochs, self.steps = epochs, epochs * schedule.steps_per_epoch
        self._begun, self._first_step = time.perf_counter(), step
        self._before = records.seconds  # of the earlier parts of a resumed run
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._bar: tqdm | None = None
        self.epoch = 0  # of the epoch under way, from 1
        self._update_run(step)

    @property
    def seconds(self) -> float:
        """How long the run has taken, its earlier parts included."""
        return self._before + time.perf_counter() - self._begun

    def speed(self, step: int) -> float:
        """Photographs a second, evaluations included, since the run was begun or resumed."""
        return (step - self._first_step) * self.config.batch / (time.perf_counter() - self._begun)

    def eta(self, step: int) -> float | None:
        """Seconds to the end of the training at the speed so far; None where no step was measured yet."""
        speed = self.speed(step)
        return (self.steps - step) * self.config.batch / speed if speed else None

    def begin_epoch(self, epoch: int, done: int) -> None:
        """Begin the bar of an epoch of which `done` steps are done."""
        self.epoch = epoch + 1
        total = self.schedule.steps_per_epoch
        self._bar = tqdm(initial=done, total=total, desc=f"epoch {self.epoch}/{self.epochs}")
        self._sums, self._counted = {}, 0

    def after_step(self, step: int, factor: float, terms: Mapping[str, float]) -> None:
        """Tell of a step: the bar each time, a line of the log each log_steps and at an epoch's end."""
        self._bar.update()
        self._counted += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if step % self.config.log_steps and step % self.schedule.steps_per_epoch:
            return
        row = self._place(step) | {"images_per_second": round(self.speed(step), 2)}
        then = self.schedule.at(step - 1)
        row |= {"lr": self.config.lr * factor, "alpha": then.alpha, "region_weight": then.weights["region"]}
        self.records.add(row | {name: round(value, 5) for name, value in terms.items()})
        left = clock(self.eta(step))
        self._bar.set_postfix_str(f"{self.speed(step):.1f} images/s, loss {terms['total']:.3f}, run ends in {left}")
        self._update_run(step)

    def after_evaluation(self, step: int, scores: Mapping[str, float]) -> None:
        """Tell of an evaluation: a second line of the step."""
        self.records.add(self._place(step) | {name: scores[name] for name in HEADLINES})

    def end_epoch(self, step: int, miou: float | None) -> None:
        """End the bar and print the epoch in one line."""
        self._bar.close()
        parts = [f"epoch {self.epoch}/{self.epochs}"]
        if self._counted:
            means = {name: self._sums[name] / self._counted for name in TERMS if name in self._sums}
            parts.append(", ".join(f"{name} {value:.3f}" for name, value in means.items()))
            parts.append(f"{self.speed(step):.1f} images/s")
        if miou is not None:
            parts.append(f"mIoU {100 * miou:.2f}")
        parts += [f"{clock(self.seconds)} so far", f"{clock(self.eta(step))} to go"]
        print(" | ".join(parts), flush=True)
        self._update_run(step)

    def close(self) -> None:
        """End the bar where it stands."""
        if self._bar is not None:
            self._bar.close()

    def _place(self, step: int) -> dict[str, float]:
        return {"step": step, "epoch": self.epoch, "seconds": round(self.seconds, 1)}

    def _update_run(self, step: int) -> None:
        if self.run is None:
            return
        epoch = min(step // self.schedule.steps_per_epoch + 1, self.epochs)
        eta = self.eta(step)
        self.run.update(
            step=step,
            steps=self.steps,
            epoch=epoch,
            epochs=self.epochs,
            eta=None if eta is None else round(eta, 1),
        )


def clock(seconds: float | None) -> str:
    """3725 -> 1:02:05."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

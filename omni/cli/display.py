"""The live display of a run: a line per stage with its steps, rows and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from omni.telemetry import Progress, listening

MARKS = {
    "planned": ("·", "dim"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "blocked": ("–", "yellow"),
}


@dataclass
class Stage:
    """What is known of a stage so far."""

    steps: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """Steps that are over, however they ended."""
        return sum(state in ("done", "failed", "blocked") for state in self.steps.values())

    @property
    def state(self) -> str:
        """The stage's state: its worst step once all are over."""
        states = set(self.steps.values())
        if self.finished < len(self.steps):
            return "running" if self.started else "planned"
        return next((state for state in ("failed", "blocked") if state in states), "done")

    @property
    def seconds(self) -> float:
        """Time since the first step began, until the last one ended."""
        if self.started is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.started


class Board:
    """Collects progress; draws itself as a table, or as a line per finished stage."""

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self.stages: dict[str, Stage] = {}
        self._lock = threading.Lock()

    def tell(self, event: Progress) -> None:
        """Take in one event."""
        with self._lock:
            stage = self.stages.setdefault(event.stage, Stage())
            if event.state == "running" and stage.started is None:
                stage.started = time.monotonic()
            if event.rows or event.state == "done":
                stage.rows[event.step] = event.rows
            if event.state == "planned" and event.step in stage.steps:
                return
            stage.steps[event.step] = event.state
            if event.state in ("failed", "blocked"):
                stage.problems.append(f"{event.step}: {event.message}")
            if stage.finished == len(stage.steps):
                stage.ended = time.monotonic()

    def __rich__(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("")
        table.add_column("stage")
        table.add_column("steps", justify="right")
        table.add_column("rows", justify="right")
        table.add_column("seconds", justify="right")
        table.add_column("now")
        with self._lock:
            for name, stage in self.stages.items():
                mark, style = MARKS[stage.state]
                current = [step for step, state in stage.steps.items() if state == "running"]
                note = stage.problems[-1] if stage.problems else ", ".join(current[:2])
                table.add_row(
                    Text(mark, style=style),
                    name,
                    f"{stage.finished}/{len(stage.steps)}",
                    f"{sum(stage.rows.values()):,}",
                    f"{stage.seconds:.1f}",
                    Text(note, style="red" if stage.problems else "dim", overflow="ellipsis", no_wrap=True),
                )
        return table


@contextmanager
def display(console: Console, title: str, *, quiet: bool) -> Iterator[None]:
    """Show a run's progress while the block works: live on a terminal, as lines elsewhere."""
    board = Board(console, title)
    if quiet:
        yield
    elif console.is_terminal:
        with listening(board.tell), Live(board, console=console, refresh_per_second=8):
            yield
    else:
        with listening(Lines(board)):
            yield


class Lines:
    """Prints a line whenever a stage is over, for logs and pipes."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.told: dict[str, tuple[int, str]] = {}

    def __call__(self, event: Progress) -> None:
        """Take in one event and say so if it ended its stage."""
        self.board.tell(event)
        stage = self.board.stages[event.stage]
        now = (len(stage.steps), stage.state)
        if (
            event.state in ("planned", "running")
            or stage.state == "running"
            or self.told.get(event.stage) == now
        ):
            return
        self.told[event.stage] = now
        self.board.console.print(
            f"{MARKS[stage.state][0]} {event.stage}: {stage.finished} steps, "
            f"{sum(stage.rows.values()):,} rows, {stage.seconds:.1f} s"
            + "".join(f"\n    {problem}" for problem in stage.problems),
            highlight=False,
            soft_wrap=True,
        )

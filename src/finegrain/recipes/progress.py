"""How far a long command has come: on a terminal a bar with the time left, in a log file ten lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from finegrain.terminal import write_line

Tell = Callable[[int, str], None]
"""(how many are done, facts in words)."""


@contextmanager
def show_progress(command: str, unit: str, total: int) -> Iterator[Tell]:
    """What is told is shown on stderr: `command` before the bar, `unit` before the numbers of a line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        every = max(1, total // 10)

        def tell(done: int, facts: str) -> None:
            if done % every == 0 or done == total:
                write_line(f"{unit} {done}/{total}  {facts}")

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(command, total=total, facts="")
        yield lambda done, facts: progress.update(task, completed=done, facts=facts)

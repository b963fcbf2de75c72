"""Progress on stderr: steps, tokens per second, time left; silent where nobody looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(steps: int, *, show: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A watcher of logged lines; on a terminal a bar, in a log file ten lines a run."""
    console = Console(stderr=True)
    if not show:
        yield lambda line: None
        return
    if not console.is_terminal:
        every = max(1, steps // 10)

        def tell(line: dict[str, Any]) -> None:
            if line["step"] % every == 0 or line["step"] == steps:
                console.print(f"step {line['step']}/{steps}  {_facts(line)}", highlight=False, soft_wrap=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=steps, facts="")
        yield lambda line: progress.update(task, completed=line["step"], facts=_facts(line))


def _facts(line: dict[str, Any]) -> str:
    margin = f"  margin {line['rewards/margins']:.4f}" if "rewards/margins" in line else ""
    return f"loss {line['loss']:.4f}{margin}  {line['tokens_per_second']:.0f} tokens/s"

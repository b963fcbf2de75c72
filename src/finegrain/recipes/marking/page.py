"""The page: tasks as data for its script (report/templates/mark*.js), in a self-contained file as the report is."""

from collections.abc import Sequence

from finegrain import __version__
from finegrain.recipes.marking.tasks import Task, TaskAnswer, digest_tasks
from finegrain.report.template import render_template
from finegrain.report.visible import clip_text
from finegrain.terminal import HIDDEN
from finegrain.types import Json

CSS = ("page.css", "mark.css")
SCRIPT = ("mark_text.js", "mark_store.js", "mark.js")


def render_mark_page(data: Json) -> str:
    """The page as a string, of what `pack_tasks` returns.

    Texts reach the script unchanged, because spans count them; it shows hidden characters as signs.
    """
    return render_template(
        "mark.html.jinja",
        css=CSS,
        script=SCRIPT,
        data={**data, "hidden": HIDDEN.pattern},
        name=clip_text(data["name"], 60),
        source=clip_text(data["source"], 200),
        tasks=len(data["tasks"]),
        answers=sum(len(task["answers"]) for task in data["tasks"]),
        version=__version__,
    )


def pack_tasks(tasks: Sequence[Task], pairs: bool, *, name: str, source: str, aspects: Sequence[str], annotator: str) -> Json:
    """The page's data, in which places count code points; `pairs`: whether rows are exported as pairs, else answer by answer."""
    return {
        "digest": digest_tasks(tasks),
        "form": "pairs" if pairs else "answers",
        "name": name,
        "source": source,
        "aspects": list(aspects),
        "annotator": annotator,
        "tasks": [_pack_task(task) for task in tasks],
    }


def _pack_task(task: Task) -> Json:
    packed: Json = {"key": task.key, "prompt": task.prompt, "answers": [_pack_answer(answer) for answer in task.answers]}
    if not isinstance(task.shown, str):
        packed["turns"] = [list(turn) for turn in task.shown]
    if task.tools:
        packed["tools"] = task.tools
    if task.pairs:
        packed["pairs"] = [{"chosen": pair.chosen, "rejected": pair.rejected, "columns": dict(pair.columns)} for pair in task.pairs]
    return packed


def _pack_answer(answer: TaskAnswer) -> Json:
    packed: Json = {"id": answer.id, "sha256": answer.digest, "text": answer.text}
    if not isinstance(answer.content, str):
        packed["content"] = answer.content
    if answer.hidden:
        packed["hidden"] = answer.hidden
    if answer.columns:
        packed["columns"] = dict(answer.columns)
    if answer.suggestions:
        packed["suggestions"] = [
            {"start": start, "end": end, "value": value, **known} for (start, end, value), known in sorted(answer.suggestions.items())
        ]
    return packed

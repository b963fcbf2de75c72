"""`finegrain mark`: a page in which people mark passages of answers, and one file of what several people exported."""

from typing import Any

from finegrain.commands.mark import MarkSettings
from finegrain.data.records import Shape
from finegrain.errors import UsageError
from finegrain.files import write_new
from finegrain.recipes.check_data import describe_report, shorten_finding
from finegrain.recipes.marking.joining import join_exports
from finegrain.recipes.marking.page import pack_tasks, render_mark_page
from finegrain.recipes.marking.suggestions import list_aspects, suggest_scored
from finegrain.recipes.marking.tasks import Task, digest_tasks, find_changed, load_marked_rows, make_tasks
from finegrain.runs import check_free
from finegrain.terminal import write_line
from finegrain.types import Json

NAMED = 5
"""Names that a line for a person lists."""


def run_mark(settings: MarkSettings) -> dict[str, Any]:
    """Writes the page, or joins exports; returns counts and findings."""
    check_free(settings.out, settings.data or "")
    return _join(settings) if settings.merge else _make_page(settings)


def _load_tasks(settings: MarkSettings, source: str) -> tuple[list[Task], bool, Json]:
    """The tasks, whether they are pairs, and the report of the gate."""
    made, report = load_marked_rows(source, settings.limit, settings.gate)
    return make_tasks(made, settings.together), report["shape"] == Shape.PREFERENCE.value, report


def _make_page(settings: MarkSettings) -> Json:
    assert settings.data is not None
    tasks, pairs, report = _load_tasks(settings, settings.data)
    for line in describe_report({**report, "not_checked": []})[1:]:
        write_line(line)
    result: Json = {"page": str(settings.out), "format": report["format"], "rows": report["rows"], "tasks": len(tasks)}
    if settings.suggest is not None:
        scored = suggest_scored(tasks, settings.suggest, settings.suggest_bad, settings.suggest_good)
        _tell("scored answers that are not on the page, or have another text there", scored.missing)
        result |= {"scored": scored.lines, "scored_elsewhere": len(scored.missing)}
        if not scored.segments:
            raise UsageError(f"--suggest {settings.suggest}: none of its {scored.lines} lines scores a passage of an answer in {settings.data}")
    changed = find_changed(tasks)
    _tell("answers that a training run would read differently from their exported rows", changed)
    aspects = list(dict.fromkeys(name.strip() for name in settings.aspects)) or list_aspects(tasks)
    data = pack_tasks(tasks, pairs, name=settings.out.stem, source=settings.data, aspects=aspects, annotator=settings.annotator)
    write_new(settings.out, [render_mark_page(data)])
    answers = [answer for task in tasks for answer in task.answers]
    suggestions = sum(len(answer.suggestions) for answer in answers)
    write_line(f"{len(tasks)} prompts with {len(answers)} answers and {suggestions} suggested spans; open {settings.out} in a browser")
    counts = {"answers": len(answers), "suggestions": suggestions, "changed": len(changed), "aspects": aspects}
    return {
        **result,
        **counts,
        "findings": list(map(shorten_finding, report["findings"])),
        "digest": digest_tasks(tasks),
        "bytes": settings.out.stat().st_size,
    }


def _join(settings: MarkSettings) -> Json:
    current = None if settings.data is None else _load_tasks(settings, settings.data)[0]
    joined = join_exports(settings.merge, current)
    write_new(settings.out, joined.text())
    for kind, places in joined.findings.items():
        _tell(kind, places)
    marked = ", ".join(f"{name} {count}" for name, count in joined.annotators.items())
    write_line(f"{len(joined.lines)} rows in {settings.out}; answers marked by: {marked or 'nobody'}")
    return joined.as_json() | {"out": str(settings.out)}


def _tell(kind: str, places: list[str]) -> None:
    if places:
        write_line(f"{kind}: {len(places)} ({', '.join(places[:NAMED])}{' …' if len(places) > NAMED else ''})")

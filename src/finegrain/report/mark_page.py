"""The page of `finegrain mark`: self-contained as the report is, with a script that keeps the work in the browser and exports it."""

from finegrain import __version__
from finegrain.report.template import render_template
from finegrain.report.visible import clip_text
from finegrain.terminal import HIDDEN
from finegrain.types import Json

CSS = ("page.css", "mark.css")
SCRIPT = ("mark_text.js", "mark_store.js", "mark.js")


def render_mark_page(data: Json) -> str:
    """The page as a string; `data` as `recipes.marking.packing` makes it.

    Texts reach the script unchanged, because spans count them; it shows hidden characters as signs.
    """
    answers = sum(len(task["answers"]) for task in data["tasks"])
    return render_template(
        "mark.html.jinja",
        css=CSS,
        script=SCRIPT,
        data={**data, "hidden": HIDDEN.pattern},
        name=clip_text(data["name"], 60),
        source=clip_text(data["source"], 200),
        tasks=len(data["tasks"]),
        answers=answers,
        form=data["form"],
        version=__version__,
    )

"""What is not as it was: told to the person before a run goes on, or is repeated."""

from finegrain.recipes.setup.session import Session, versions
from finegrain.runs import REPEATED, RunDirectory, changed_since


def tell_changes(session: Session, directory: RunDirectory, *, resume: bool) -> None:
    """A line for each of model, data and versions that another record says otherwise; in run.json too."""
    now = {**session.notes, "versions": versions()}
    repeated = REPEATED.get()
    lines = [] if repeated is None else [f"again: {line}" for line in changed_since(repeated, now)]
    if resume and (directory.path / "run.json").exists():
        lines += [f"resume: {line}; numbers may differ from an uninterrupted run's" for line in changed_since(directory.read_record(), now)]
    for line in lines:
        session.say(line)
    if lines:
        session.notes["changed"] = lines

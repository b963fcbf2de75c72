"""Exports of several people as one file. An answer is the same where its name and the digest of its text are; nothing else is joined."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finegrain.errors import DataError, UsageError
from finegrain.recipes.marking.content import digest_prompt
from finegrain.recipes.marking.exports import ROLES, VERSION, AnswerKey, AnswerMarks, ExportedRow, read_export
from finegrain.recipes.marking.tasks import Task
from finegrain.types import Json, of_other_side

DIRECTED = frozenset({"margin", "strength", "strength_mean", "strength_std", "label_prob", "flip", "tie", "member_margins", "helpful", "harmless"})
"""Numbers of a pair that say something of its direction."""
MOST_PLACES = 20
"""Places of a finding in the result."""


@dataclass
class Joined:
    """The rows, and what was found on the way: places by kind."""

    lines: list[Json] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)
    annotators: Counter[str] = field(default_factory=Counter)
    """Answers by the person who marked them."""

    def find(self, kind: str, place: str) -> None:
        """Names a place."""
        self.findings.setdefault(kind, []).append(place)

    def text(self) -> Iterator[str]:
        """The lines of the file."""
        return (json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)

    def as_json(self) -> Json:
        """For stdout."""
        findings = [{"kind": kind, "count": len(places), "places": places[:MOST_PLACES]} for kind, places in self.findings.items()]
        return {"rows": len(self.lines), "annotators": dict(self.annotators), "findings": findings}


class MarksByAnswer:
    """Everybody's marks by answer; of two exports of one person the newer one counts."""

    def __init__(self, joined: Joined) -> None:
        self._joined = joined
        self._marks: dict[AnswerKey, dict[str, AnswerMarks]] = defaultdict(dict)

    def add(self, key: AnswerKey, marks: AnswerMarks) -> None:
        """Adds the marks of one row; an answer that stands in several pairs of an export brings the same marks again."""
        known = self._marks[key].get(marks.annotator)
        if known is None:
            self._marks[key][marks.annotator] = marks
            return
        newer, older = (marks, known) if marks.saved >= known.saved else (known, marks)
        self._marks[key][marks.annotator] = newer
        if not marks.same(known):
            self._joined.find("superseded", f"{older.place} ({key.id} by {older.annotator}; {newer.place} counts)")
        elif _file(marks.place) != _file(known.place):
            self._joined.find("duplicate", f"{marks.place} ({key.id} by {marks.annotator})")

    def of(self, key: AnswerKey) -> Mapping[str, AnswerMarks]:
        """By person."""
        return self._marks[key]

    def count(self) -> Counter[str]:
        """Answers by person."""
        return Counter(person for marks in self._marks.values() for person in marks)


def join_exports(files: Sequence[Path], current: Sequence[Task] | None = None) -> Joined:
    """The exports joined; `current`: the tasks of a data file, against which they are checked."""
    joined = Joined()
    rows = [row for file in files for row in read_export(file)]
    if not rows:
        raise DataError(f"{', '.join(map(str, files))}: no rows")
    if len({frozenset(row.keys) for row in rows}) > 1:
        raise UsageError("the exports are of different forms, pairs and single answers; join those of one data file at a time")
    _check_names(rows, joined)
    _check_texts(rows, joined)
    names = {} if current is None else _check_data(rows, current, joined)

    def key_of(row: ExportedRow, role: str) -> AnswerKey:
        return names.get(row.keys[role], row.keys[role])

    marks = MarksByAnswer(joined)
    for row in rows:
        for role, people in row.marks.items():
            for one in people:
                marks.add(key_of(row, role), one)
                if not one.done:
                    joined.find("unfinished", f"{row.place} ({row.keys[role].id} by {one.annotator})")
    joined.annotators = marks.count()
    if "answer" in rows[0].keys:
        same: dict[AnswerKey, list[ExportedRow]] = {}
        for row in sorted(rows, key=lambda row: str(row.line["mark"].get("saved", ""))):
            same.setdefault(key_of(row, "answer"), []).append(row)
        for key in dict.fromkeys(key_of(row, "answer") for row in rows):
            preferences = {person: preference for row in same[key] for person, preference in row.preferences.items()}
            joined.lines.append(_line(same[key][0], {"answer": key}, marks, preferences=preferences))
    else:
        joined.lines = _pairs([(row, key_of(row, "chosen"), key_of(row, "rejected")) for row in rows], marks, joined)
    return joined


def _check_names(rows: Sequence[ExportedRow], joined: Joined) -> None:
    """Names files without an annotator, and files of pages that were made of other data."""
    for row in {row.file: row for row in reversed(rows)}.values():
        if not row.line.get("annotator") and not {"votes", "preferences"} & set(row.line["mark"]):
            joined.find("unnamed_annotator", f"{row.file} (its file name stands for the person)")
        if row.data != rows[0].data:
            joined.find("other_page", f"{row.file} (its page was made of other data than that of {rows[0].file})")


def _check_texts(rows: Sequence[ExportedRow], joined: Joined) -> None:
    """Names texts that were changed after the export, texts and prompts that differ between exports, and spans that do not fit their text."""
    first: dict[str, ExportedRow] = {}
    texts: dict[str, str] = {}
    prompts: dict[AnswerKey, str] = {}
    for row in rows:
        for role, key in row.keys.items():
            if key.digest != row.recorded[role]:
                joined.find("text_altered", f"{row.place} ({key.id}: its text is not the one that was marked)")
            if texts.setdefault(key.id, key.digest) != key.digest:
                joined.find("text_differs", f"{row.place} ({key.id}: another text than in {first[key.id].place}; both are kept)")
            if prompts.setdefault(key, row.prompt) != row.prompt:
                joined.find("prompt_differs", f"{row.place} ({key.id}: another prompt than in {first[key.id].place})")
            first.setdefault(key.id, row)
            if any(not 0 <= span["start"] < span["end"] <= row.lengths[role] for one in row.marks[role] for span in one.spans):
                joined.find("span_outside_text", f"{row.place} ({key.id})")


def _check_data(rows: Sequence[ExportedRow], current: Sequence[Task], joined: Joined) -> dict[AnswerKey, AnswerKey]:
    """New names of answers that stand in another row of the data now; names those whose text the data no longer have."""
    texts: dict[str, tuple[str, str]] = {}
    ids: dict[tuple[str, str], str] = {}
    for task in current:
        for answer in task.answers:
            texts |= dict.fromkeys(answer.ids, (digest_prompt(task.prompt), answer.digest))
            ids.setdefault((digest_prompt(task.prompt), answer.digest), answer.id)
    moved = {}
    for row in rows:
        for key in row.keys.values():
            own = (row.prompt, key.digest)
            known = texts.get(key.id)
            if known == own:
                continue
            if own in ids:
                moved[key] = AnswerKey(ids[own], key.digest)
                joined.find("moved", f"{row.place} ({key.id} is {ids[own]} in the data)")
            elif known is not None and known[1] == key.digest:
                joined.find("prompt_differs_from_data", f"{row.place} ({key.id}; kept with the prompt that was marked)")
            else:
                kind = "text_differs_from_data" if known is not None else "not_in_data"
                joined.find(kind, f"{row.place} ({key.id}; kept with the text that was marked)")
    return moved


Named = tuple[ExportedRow, AnswerKey, AnswerKey]


def _pairs(rows: Sequence[Named], marks: MarksByAnswer, joined: Joined) -> list[Json]:
    """One row for each two answers that were compared, in the direction of most votes; the data's own direction where nobody voted."""
    together: dict[frozenset[AnswerKey], list[Named]] = {}
    for named in rows:
        together.setdefault(frozenset(named[1:]), []).append(named)
    decided = [(group, _count_votes(group, joined)) for group in together.values()]
    several = any(len(votes) > 1 for _, votes in decided)
    return [_decide(group, votes, marks, several) for group, votes in decided]


def _count_votes(group: Sequence[Named], joined: Joined) -> dict[str, int]:
    """By person, the vote for the first row's chosen answer; of two votes of one person the newer one counts."""
    votes: dict[str, tuple[str, int, str]] = {}
    for row, chosen, _ in group:
        for person, vote in row.votes.items():
            own = (str(row.line["mark"].get("saved", "")), vote if chosen == group[0][1] else -vote, row.place)
            known = votes.get(person, own)
            if known[1] != own[1]:
                joined.find("vote_changed", f"{min(known, own)[2]} (by {person}; {max(known, own)[2]} counts)")
            votes[person] = max(known, own)
    return {person: vote for person, (_, vote, _) in votes.items()}


def _decide(group: Sequence[Named], votes: Mapping[str, int], marks: MarksByAnswer, several: bool) -> Json:
    row, chosen, rejected = group[0]
    balance = sum(votes.values())
    if balance < 0:
        found = next((one for one in group if one[1] == rejected), None)
        line = row.line if found is None else found[0].line
        template = _flip(line) if found is None else dict(line)
        chosen, rejected = rejected, chosen
        votes = {person: -vote for person, vote in votes.items()}
    else:
        template = dict(row.line)
    if votes:
        template["tie"] = int(balance == 0)
    if several:
        template["label_prob"] = (1 + abs(balance) / len(votes)) / 2 if votes else float(template.get("label_prob", 1.0))
    return _line(row, {"chosen": chosen, "rejected": rejected}, marks, template, votes=votes)


def _flip(line: Json) -> Json:
    """The pair with its answers exchanged; numbers that would be wrong then are left out."""
    return {of_other_side(name): value for name, value in line.items() if name not in DIRECTED}


def _line(row: ExportedRow, keys: Mapping[str, AnswerKey], marks: MarksByAnswer, template: Json | None = None, **compared: Mapping[str, Any]) -> Json:
    """A row with everybody's spans, and by name how people compared; `annotators` of an answer also names those who found nothing to mark."""
    line = {name: value for name, value in (template or row.line).items() if name not in ("annotator", "mark", *ROLES.values())}
    answers: dict[str, Any] = {}
    for role, key in keys.items():
        people = marks.of(key)
        line[ROLES[role]] = [span for one in people.values() for span in one.spans] if people else None
        notes = [note for one in people.values() for note in one.notes]
        answers[role] = {"id": key.id, "sha256": key.digest, "annotators": list(people), **({"notes": notes} if notes else {})}
    saved = max((one.saved for key in keys.values() for one in marks.of(key).values()), default=str(row.line["mark"].get("saved", "")))
    record = {"version": VERSION, "data": row.data, "saved": saved, "done": True, "answers": answers}
    return line | {"mark": record | {name: dict(by_person) for name, by_person in compared.items()}}


def _file(place: str) -> str:
    """The file of a place `FILE:LINE` or `FILE row N`."""
    return place.rpartition(":")[0] or place.rpartition(" row ")[0]

"""Answers rated by people or models: a column `rating/<attribute>` for each attribute. A missing rating is NaN, which the gate reports."""

from finegrain.data.columns import read_list, read_number, read_rating, read_text
from finegrain.data.conversations import parse_extra_id, parse_transcript, read_prompt, split_demonstration
from finegrain.data.convert.build import make_single
from finegrain.data.left_out import LeftOut, Made
from finegrain.data.reading import Reading
from finegrain.data.records import Answer, Row, Turn
from finegrain.errors import DataError

HELPSTEER2 = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ULTRAFEEDBACK = ("instruction_following", "honesty", "truthfulness", "helpfulness")
OVERALL = {"overall_score": "overall", "fine-grained_score": "fine_grained"}
RED_TEAM = {"rating": "attack_success", "min_harmlessness_score_transcript": "min_harmlessness"}


def rated(row: Reading) -> list[Row]:
    """{prompt, response, ratings: {attribute: number}}."""
    columns = {f"rating/{name}": read_rating(value, name) for name, value in row["ratings"].items()}
    return [make_single(read_prompt(row["prompt"], "prompt"), read_text(row, "response"), columns)]


def helpsteer2(row: Reading) -> list[Row]:
    """One answer with five ratings of 0..4; rows that share a prompt stay apart."""
    columns = {f"rating/{name}": read_number(row, name) for name in HELPSTEER2}
    return [make_single(parse_extra_id(read_text(row, "prompt")), read_text(row, "response"), columns)]


def ultrafeedback(row: Reading) -> list[Made]:
    """Every completion with its ratings, which are text in the files; attributes that no completion of the row has are left out."""
    completions = read_list(row, "completions", dict)
    attributes = [name for name in ULTRAFEEDBACK if any(name in completion["annotations"] for completion in completions)]
    prompt = (Turn("user", read_text(row, "instruction")),)
    rows: list[Made] = []
    for completion in completions:
        given = {name: completion["annotations"].get(name) or {} for name in attributes}
        columns = {f"rating/{name}": read_rating(annotation.get("Rating"), name) for name, annotation in given.items()}
        overall = {f"rating/{ours}": read_rating(completion[name], name) for name, ours in OVERALL.items() if completion.get(name) is not None}
        rows.append(make_single(prompt, read_text(completion, "response"), {**columns, **overall}))
    return rows or [LeftOut.NO_ANSWER]


def red_team(row: Reading) -> list[Row]:
    """The whole attack after the human's first turn, with its success rating and the harmlessness of its worst turn."""
    prompt, answer = split_demonstration(parse_transcript(read_text(row, "transcript"), "transcript"))
    columns = {f"rating/{ours}": read_rating(row[name], name) for name, ours in RED_TEAM.items()}
    return [Row(prompt=prompt, answers={"answer": Answer(content=answer)}, columns=columns)]


def refuse_red_team(row: Reading) -> list[Row]:
    """Always an error: these transcripts show behaviour that a policy must not learn."""
    raise DataError("hh-rlhf red-team-attempts are attacks, not demonstrations; no policy is trained on them. Use another file of hh-rlhf")

"""The formats that finegrain recognises, each a short entry: name, the columns it needs, and functions from a row to examples.

Recognition looks at a row, from the most specific format to the most general. A new public format is one entry in FORMATS
and one function per shape it can serve (`finegrain.data.convert`); the other shapes are derived (`finegrain.data.shapes`).
Source: data cards, files and loaders of the named sets.
Deviations: see docs/guides/data.md.
"""

from collections.abc import Callable, Mapping
from typing import Any

from finegrain.data.conversations import is_conversation
from finegrain.data.convert import annotated, argilla, label_studio, own, pairs, ranked, rated, steps, tasks, usual
from finegrain.data.nearest import describe_nearest
from finegrain.data.reading import Reading
from finegrain.data.shapes import Format, rows_of_shape
from finegrain.errors import DataError

__all__ = ["FORMATS", "Format", "recognise", "rows_of_shape"]


def recognise(row: Mapping[str, Any]) -> Format:
    """The format of a row; otherwise a DataError names the nearest format and the necessary changes."""
    cells = Reading(row)
    cells.check()
    columns = frozenset(row)
    for candidate in FORMATS:
        if candidate.columns <= columns and candidate.matches(cells):
            return candidate
    raise DataError(describe_nearest(row, [entry for entry in FORMATS if entry.name != TAGGED]))


def _has(*names: str) -> frozenset[str]:
    return frozenset(names)


def _transcripts(row: Reading) -> bool:
    return _no_prompt(row) and all(isinstance(row[role], str) and "Assistant:" in row[role] for role in ("chosen", "rejected"))


def _whole_transcripts(row: Reading) -> bool:
    return all(isinstance(row[role], str) and row[role].startswith("\n\nHuman:") for role in ("chosen", "rejected"))


def _is_label(column: str) -> Callable[[Reading], bool]:
    return lambda row: row[column] in (0, 1)


def _no_prompt(row: Reading) -> bool:
    prompt = row.get("prompt")
    return prompt is None or (not prompt.strip() if isinstance(prompt, str) else isinstance(prompt, list) and not prompt)


def _question_alone(row: Reading) -> bool:
    """Has neither a system prompt, which would make it a conversation, nor a label."""
    return not own.has_system(row) and not any(_is_label(name)(row) for name in usual.LABELS if name in row)


def _conversations(row: Reading) -> bool:
    return is_conversation(row["chosen"])


def _strings(row: Reading) -> bool:
    strings = all(isinstance(row[column], str) for column in ("prompt", "chosen", "rejected"))
    return strings and not own.has_system(row) and not _whole_transcripts(row)


def _lists(row: Reading) -> bool:
    return all(isinstance(row[role], list) and all(isinstance(item, str) for item in row[role]) for role in ("chosen", "rejected"))


def _turn_lists(row: Reading) -> bool:
    return _no_prompt(row) and _lists(row) and bool(row["chosen"])


def _ranked_objects(column: str) -> Callable[[Reading], bool]:
    """Whether the answers are objects with a rank or a score."""

    def matches(row: Reading) -> bool:
        cell = row[column]
        return isinstance(cell, list) and bool(cell) and all(isinstance(one, dict) and one.keys() & {"rank", "score"} for one in cell)

    return matches


def _triples(column: str) -> Callable[[Reading], bool]:
    """Whether a label is a list of [start, end, name]."""
    return lambda row: annotated.is_triples(row[column])


TAGGED = "inline tags"
"""Has the columns of demonstrations and instructions, so the nearest form is never this one."""
RESPONSES = ("response_0", "response_1")
SAFE = ("is_response_0_safe", "is_response_1_safe", "better_response_id", "safer_response_id")

FORMATS: tuple[Format, ...] = (
    Format(
        "qa_feedback",
        _has("question", "passages", *(f"prediction {n}" for n in range(1, 5)), "feedback", "preference"),
        tasks.qa_feedback,
        ranked=tasks.qa_ranked,
        corrections=tasks.qa_corrections,
        references=tasks.qa_references,
    ),
    Format(
        "gsm8k model solutions",
        _has("question", "ground_truth"),
        tasks.solution_pairs,
        tasks.solutions,
        ranked=tasks.ranked_solutions,
        matches=lambda row: bool(tasks.solution_columns(row)),
    ),
    Format(
        "PRM800K",
        _has("question", "label"),
        steps=steps.prm800k,
        matches=lambda row: isinstance(row["question"], dict) and isinstance(row["label"], dict),
    ),
    Format("Label Studio", _has("data", "annotations"), demonstrations=label_studio.label_studio, matches=lambda row: isinstance(row["data"], dict)),
    Format("Label Studio JSON-MIN", _has("annotation_id", "annotator", "lead_time"), demonstrations=label_studio.label_studio_min),
    Format("Argilla", _has("fields", "responses"), demonstrations=argilla.argilla, matches=lambda row: isinstance(row["fields"], dict)),
    Format("Argilla", _has("text", "annotation", "annotation_agent"), demonstrations=argilla.argilla_tokens),
    Format("Argilla", _has("id", "status"), demonstrations=argilla.argilla_flat, matches=argilla.has_span_responses, decides=True),
    Format("MQM", _has("prompt", "response", "system", "segment", "spans_by_rater"), demonstrations=annotated.mqm),
    *(Format("doccano", _has("text", column), demonstrations=annotated.doccano, matches=_triples(column)) for column in ("label", "labels")),
    Format("doccano", _has("text", "entities"), demonstrations=annotated.doccano_entities),
    Format("first wrong step", _has("prompt", "completions", "first_error"), steps=steps.first_error),
    Format("gsm8k", _has("question", "answer"), demonstrations=tasks.gsm8k, matches=_question_alone),
    Format("Math-Shepherd", _has("input", "label", "task"), steps=steps.math_shepherd),
    Format(
        "hh-rlhf red-team-attempts",
        _has("transcript", "min_harmlessness_score_transcript", "rating"),
        demonstrations=rated.refuse_red_team,
        ratings=rated.red_team,
    ),
    Format("SHP", _has("history", "human_ref_A", "human_ref_B", "labels", "score_ratio"), pairs.shp),
    Format("PKU-SafeRLHF", _has("prompt", *RESPONSES, *SAFE), pairs.pku_safe, demonstrations=pairs.pku_safe_demonstrations),
    Format("Nectar", _has("prompt", "answers", "turns", "num_responses"), pairs.nectar, ranked=pairs.nectar_ranked),
    Format("UltraFeedback", _has("source", "instruction", "completions"), ratings=rated.ultrafeedback),
    Format("HelpSteer2", _has("prompt", "response", *rated.HELPSTEER2), ratings=rated.helpsteer2),
    Format("HelpSteer2 preference", _has("prompt", "response_1", "response_2", "preference_strength"), pairs.helpsteer2_preference),
    Format("HelpSteer3 preference", _has("context", "response1", "response2", "overall_preference"), pairs.helpsteer3_preference),
    Format(
        "RewardBench 2",
        _has("prompt", "chosen", "rejected", "num_correct", "total_completions", "subset"),
        pairs.reward_bench_2,
        ranked=pairs.reward_bench_2_ranked,
    ),
    Format("RewardBench", _has("prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset"), pairs.reward_bench),
    Format(
        "UltraFeedback binarized", _has("prompt", "prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"), pairs.ultrafeedback_binarized
    ),
    Format(
        "OpenAI preference",
        _has("input", "preferred_output", "non_preferred_output"),
        usual.openai_preference,
        matches=lambda row: isinstance(row["input"], dict),
    ),
    *(
        Format("conversation pairs", _has(column, "chosen", "rejected"), usual.conversation_pair(column), matches=_no_prompt)
        for column in usual.CONVERSED
    ),
    *(Format("instruction pairs", _has(column, "chosen", "rejected"), usual.instruction_pair, matches=_no_prompt) for column in usual.ASKED),
    Format("instruction pairs", _has("instruction", "output"), usual.instruction_outputs, matches=lambda row: isinstance(row["output"], list)),
    Format("ms-swift pairs", _has("messages", "rejected_response"), usual.rejected_beside, demonstrations=usual.conversation("messages")),
    Format("hh-rlhf", _has("chosen", "rejected"), own.hh_rlhf, matches=_transcripts),
    Format("hh-rlhf-strength-cleaned", _has("chosen", "rejected"), pairs.hh_strength, matches=_turn_lists),
    Format("preference pairs", _has("prompt", "chosen", "rejected"), own.preference_strings, matches=_strings),
    Format("hh-rlhf", _has("prompt", "chosen", "rejected"), own.hh_beside, matches=_whole_transcripts),
    Format("preference conversations", _has("prompt", "chosen", "rejected"), own.preference_turns),
    Format("preference conversations, implicit prompt", _has("chosen", "rejected"), own.preference_implicit, matches=_conversations),
    *(Format("ranked answers", _has("prompt", column, by), ranked=ranked.ranked) for column in ranked.ANSWERS for by in ("ranks", "scores")),
    Format("corrections", _has("prompt", "original", "corrected"), corrections=ranked.correction),
    Format("rated answers", _has("prompt", "response", "ratings"), ratings=rated.rated, matches=lambda row: isinstance(row["ratings"], dict)),
    Format("labelled steps", _has("prompt", "completions", "labels"), steps=steps.stepwise),
    *(Format("unpaired answers", _has("prompt", column, "label"), answers=own.labelled) for column in own.ANSWERED),
    *(
        Format("labelled instructions", _has(question, answer, label), answers=usual.labelled_instruction, matches=_is_label(label))
        for question in usual.ASKED
        for answer in usual.ANSWERED
        for label in usual.LABELS
    ),
    *(
        Format("labelled conversations", _has(column, label), answers=usual.labelled_conversation(column), matches=_is_label(label))
        for column in usual.CONVERSED
        for label in usual.LABELS
    ),
    *(
        Format(TAGGED, _has(asked, answer), demonstrations=annotated.inline_tags, matches=annotated.has_tags, decides=True)
        for asked in annotated.PROMPTS
        for answer in annotated.ANSWERS
    ),
    *(Format("demonstrations", _has("prompt", column), demonstrations=own.prompt_answer) for column in own.ANSWERED),
    *(Format("instructions", _has(question, answer), demonstrations=usual.instruction) for question in usual.ASKED for answer in usual.ANSWERED),
    Format("demonstration conversations", _has("messages"), demonstrations=usual.conversation("messages")),
    *(Format("ShareGPT conversations", _has(column), demonstrations=usual.conversation(column)) for column in usual.CONVERSED[1:]),
    *(Format("ranked answers", _has("prompt", column), ranked=ranked.ranked, matches=_ranked_objects(column)) for column in ranked.ANSWERS),
    Format("text", _has("text"), demonstrations=own.text),
)

"""The formats this house recognises, each a short entry: name, the columns it needs, and functions from a row to examples.

Recognition looks at a row, from the most particular format to the most general. A new public format is one entry in FORMATS
and one function per shape it can serve (`finegrain.data.convert`); the other shapes are derived (`finegrain.data.shapes`).
Source: data cards, files and loaders of the named sets.
Deviations: see docs/guides/data.md.
"""

from collections.abc import Mapping
from typing import Any

from finegrain.data.conversations import is_conversation
from finegrain.data.convert import own, pairs, ranked, rated, steps, tasks
from finegrain.data.reading import Reading
from finegrain.data.shapes import Format, rows_of_shape
from finegrain.errors import DataError

__all__ = ["FORMATS", "Format", "recognise", "rows_of_shape"]


def recognise(row: Mapping[str, Any]) -> Format:
    """The format of a row; a DataError lists the columns found and those expected."""
    cells = Reading(row)
    for candidate in FORMATS:
        if candidate.columns <= row.keys() and candidate.matches(cells):
            return candidate
    expected = "; ".join(f"{entry.name} ({', '.join(sorted(entry.columns))})" for entry in FORMATS)
    raise DataError(f"columns found: {', '.join(row) or 'none'}; expected one of: {expected}")


def _has(*names: str) -> frozenset[str]:
    return frozenset(names)


def _transcripts(row: Reading) -> bool:
    return row.get("prompt") is None and all(isinstance(row[role], str) and "Assistant:" in row[role] for role in ("chosen", "rejected"))


def _whole_transcripts(row: Reading) -> bool:
    return all(isinstance(row[role], str) and row[role].startswith("\n\nHuman:") for role in ("chosen", "rejected"))


def _conversations(row: Reading) -> bool:
    return is_conversation(row["chosen"])


def _strings(row: Reading) -> bool:
    return all(isinstance(row[column], str) for column in ("prompt", "chosen", "rejected")) and not own.has_system(row)


def _lists(row: Reading) -> bool:
    return all(isinstance(row[role], list) and all(isinstance(item, str) for item in row[role]) for role in ("chosen", "rejected"))


def _turn_lists(row: Reading) -> bool:
    return row.get("prompt") is None and _lists(row) and bool(row["chosen"])


RESPONSES = ("response_0", "response_1")
SAFE = ("is_response_0_safe", "is_response_1_safe", "better_response_id", "safer_response_id")

FORMATS: tuple[Format, ...] = (
    Format("qa_feedback", _has("question", "passages", *(f"prediction {n}" for n in range(1, 5)), "feedback", "preference"), tasks.qa_feedback),
    Format(
        "gsm8k model solutions",
        _has("question", "ground_truth"),
        tasks.solution_pairs,
        tasks.solutions,
        matches=lambda row: bool(tasks.solution_columns(row)),
    ),
    Format(
        "PRM800K",
        _has("question", "label"),
        steps=steps.prm800k,
        matches=lambda row: isinstance(row["question"], dict) and isinstance(row["label"], dict),
    ),
    Format("gsm8k", _has("question", "answer"), demonstrations=tasks.gsm8k),
    Format("Math-Shepherd", _has("input", "label", "task"), steps=steps.math_shepherd),
    Format(
        "hh-rlhf red-team-attempts",
        _has("transcript", "min_harmlessness_score_transcript", "rating"),
        demonstrations=rated.refuse_red_team,
        ratings=rated.red_team,
    ),
    Format("SHP", _has("history", "human_ref_A", "human_ref_B", "labels", "score_ratio"), pairs.shp),
    Format("PKU-SafeRLHF", _has("prompt", *RESPONSES, *SAFE), pairs.pku_safe, demonstrations=pairs.pku_safe_demonstrations),
    Format("Nectar", _has("prompt", "answers", "turns", "num_responses"), ranked.nectar),
    Format("UltraFeedback", _has("source", "instruction", "completions"), ratings=rated.ultrafeedback),
    Format("HelpSteer2", _has("prompt", "response", *rated.HELPSTEER2), ratings=rated.helpsteer2),
    Format("HelpSteer2 preference", _has("prompt", "response_1", "response_2", "preference_strength"), pairs.helpsteer2_preference),
    Format("HelpSteer3 preference", _has("context", "response1", "response2", "overall_preference"), pairs.helpsteer3_preference),
    Format("RewardBench 2", _has("prompt", "chosen", "rejected", "num_correct", "total_completions", "subset"), ranked.reward_bench_2),
    Format("RewardBench", _has("prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset"), pairs.reward_bench),
    Format(
        "UltraFeedback binarized", _has("prompt", "prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"), pairs.ultrafeedback_binarized
    ),
    Format("hh-rlhf", _has("chosen", "rejected"), own.hh_rlhf, matches=_transcripts),
    Format("hh-rlhf", _has("prompt", "chosen", "rejected"), own.hh_beside, matches=_whole_transcripts),
    Format("hh-rlhf-strength-cleaned", _has("chosen", "rejected"), pairs.hh_strength, matches=_turn_lists),
    Format("preference pairs", _has("prompt", "chosen", "rejected"), own.preference_strings, matches=_strings),
    Format("preference conversations", _has("prompt", "chosen", "rejected"), own.preference_turns),
    Format("preference conversations, implicit prompt", _has("chosen", "rejected"), own.preference_implicit, matches=_conversations),
    Format("rated answers", _has("prompt", "response", "ratings"), ratings=rated.rated, matches=lambda row: isinstance(row["ratings"], dict)),
    Format("labelled steps", _has("prompt", "completions", "labels"), steps=steps.stepwise),
    Format("unpaired answers", _has("prompt", "completion", "label"), answers=own.labelled),
    Format("unpaired answers", _has("prompt", "response", "label"), answers=own.labelled),
    Format("unpaired answers", _has("prompt", "answer", "label"), answers=own.labelled),
    Format("demonstrations", _has("prompt", "completion"), demonstrations=own.prompt_answer),
    Format("demonstrations", _has("prompt", "response"), demonstrations=own.prompt_answer),
    Format("demonstrations", _has("prompt", "answer"), demonstrations=own.prompt_answer),
    Format("demonstration conversations", _has("messages"), demonstrations=own.messages),
    Format("text", _has("text"), demonstrations=own.text),
)

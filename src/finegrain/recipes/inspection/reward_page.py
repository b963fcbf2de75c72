"""A reward-model checkpoint on data, as if it were a run: token scores, segments and the scores of whole answers, without training."""

from pathlib import Path

from finegrain.commands.inspect import InspectSettings
from finegrain.configure import to_json
from finegrain.data.shapes import TEXT_SHAPES
from finegrain.errors import UsageError
from finegrain.recipes.inspection.pairs import inspect_row, truths
from finegrain.recipes.inspection.rewards import Segments, answer_rewards
from finegrain.recipes.session import load_data, open_session, stamp
from finegrain.report.read import Run
from finegrain.run_record import RunRecord
from finegrain.scoring.reward_model import load_model_reward
from finegrain.scoring.runtime import open_runtime


def scored_by_reward(settings: InspectSettings) -> Run:
    """The reward model of --model on the rows of --data."""
    assert settings.data is not None
    assert settings.model is not None
    if settings.reference is not None:
        raise UsageError(f"{settings.model} is a reward model, which has no log-probabilities to compare; drop --reference")
    if settings.trust_remote_code:
        raise UsageError(f"{settings.model} is a reward model; those are loaded in transformers' own classes only; drop --trust-remote-code")
    reward = load_model_reward(open_runtime(settings.device, settings.dtype), settings.model, max_length=settings.max_length)
    session = open_session(reward.model.scorer.model, settings, tokenizer=reward.tokenizer)
    session.scorer = reward.model.scorer
    loaded = load_data(session, settings.data, TEXT_SHAPES, limit=settings.limit)
    examples = [loaded.examples[index] for index in range(len(loaded.examples))]
    roles = tuple(examples[0].responses)
    segmentation = reward.model.segmentation
    segments: Segments = [{}] * len(examples) if segmentation is None else segmentation(examples, roles, session.precision)
    for line in reward.describe():
        session.say(line)
    rewards = answer_rewards(reward.model.scorer, reward.model.head, examples, roles, segments, session.precision)
    truth = truths(settings.data, [example.row for example in examples])
    pairs = [
        inspect_row(example, roles, held_out=True, before={}, after={}, credit={}, truth=truth.get(example.row, {}), rewards=own)
        for example, own in zip(examples, rewards, strict=True)
    ]
    facts = RunRecord(command="inspect", settings=to_json(settings), status="finished", data=loaded.report, rows=len(examples), other=reward.facts())
    missing = ["No curves: nothing was trained. The page cannot know which of these rows the reward model was trained on; it takes all as held out."]
    return Run(name=Path(settings.model).name, record=stamp(session, facts), pairs=pairs, missing=missing)

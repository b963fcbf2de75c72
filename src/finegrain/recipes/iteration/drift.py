"""How far a round's model is from the one that the run started from, on answers of its own that it has sampled anyway."""

from collections.abc import Sequence

import numpy as np

from finegrain.data.records import Example, Response
from finegrain.data.store import ExampleStore
from finegrain.models.load import load_policy, master_dtype
from finegrain.ops.stats import mean_interval
from finegrain.recipes.session import Session
from finegrain.rounds.context import Drawn
from finegrain.scoring.runtime import Runtime, policy_logps
from finegrain.types import Json

MOST = 64
"""Prompts of the estimate [choice]."""
ROLE = "answer"


def measure_drift(session: Session, start: str, examples: ExampleStore, answers: Sequence[Drawn]) -> Json:
    """KL(model || start) per answer in nats: the mean of log-ratios of the model's own samples, with its interval.

    Of an answer that was cut it counts the tokens that were sampled. Samples of another temperature than 1 make it another number.
    """
    given = [_answered(example, one) for example, one in zip(examples[:MOST], answers[:MOST], strict=True)]
    runtime = Runtime(session.device, session.precision, None)
    sums = []
    for policy in (session.policy, load_policy(start, master=master_dtype(session.precision.name), trust_remote_code=session.trust_remote_code)):
        logps = policy_logps(runtime, policy, given, (ROLE,))[ROLE]
        sums.append(np.array([one.sum(dtype=np.float64) for one in logps]))
    return mean_interval(sums[0] - sums[1]).as_json()


def _answered(example: Example, drawn: Drawn) -> Example:
    """The prompt with the tokens that were sampled."""
    ids = np.array(drawn.ids, dtype=np.int32)
    response = Response(ids, np.ones(len(ids), dtype=bool), np.zeros((len(ids), 2), dtype=np.int32), drawn.text)
    return Example(example.row, example.prompt, example.prompt_text, {ROLE: response}, {}, {ROLE: None}, {ROLE: None})

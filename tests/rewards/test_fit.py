"""A head and a loss as one objective: what fits a frozen backbone, and what the loop sees."""

from collections.abc import Callable

import numpy as np
import pytest

from finegrain.errors import UsageError
from finegrain.ops.readout import Last, Mean
from finegrain.rewards.attributes import Attributes
from finegrain.rewards.bradley_terry import BradleyTerry
from finegrain.rewards.brme import BRME
from finegrain.rewards.fine_grained import FineGrained
from finegrain.rewards.fit import RewardFit
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.rewards.rating import Rating
from finegrain.rewards.rating_labels import RatingLabels
from finegrain.rewards.secrets_rm import SecretsRM
from finegrain.rewards.segment import Segment
from finegrain.rewards.sequence import Sequence
from finegrain.rewards.step import Step
from finegrain.rewards.step_labels import StepLabels
from finegrain.rewards.token import Token
from tests.rewards.answers import Answers


class Weighing(Sequence):
    """A head of last tokens that says of itself that it reads the others too."""

    reads_whole_answer = True


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RewardFit(Token(readout=Mean()), BradleyTerry(), frozen=True), "Token reads others"),
        (lambda: RewardFit(Segment(readout=Last()), BradleyTerry(), frozen=True), "Segment reads others"),
        (lambda: RewardFit(Step(readout=Last()), StepLabels(), frozen=True), "Step reads others"),
        (lambda: RewardFit(Weighing(), BradleyTerry(), frozen=True), "Weighing reads others"),
        (lambda: RewardFit(Sequence(), SecretsRM(lm_factor=0.5), frozen=True), "SecretsRM reads all of them"),
        (lambda: RewardFit(Token(readout=Last()), FineGrained(), frozen=True), "FineGrained reads all of them"),
    ],
)
def test_a_frozen_fit_reads_last_tokens(make: Callable[[], RewardFit], name: str) -> None:
    with pytest.raises(UsageError, match=f"--frozen keeps only the last token of every answer, but {name}"):
        make()


class Misspelt(Sequence):
    """A head that declares what no head may."""

    read_position = None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RewardFit(Token(), RatingLabels()), "RatingLabels fits a Rating head, found Token; choose that head"),
        (lambda: RewardFit(Attributes(), BradleyTerry()), "only AttributeRatings fits every part of a Attributes head, found BradleyTerry; choose"),
        (lambda: RewardFit(Misspelt(), BradleyTerry()), "Misspelt: unknown head declaration 'read_position'; did you mean read_positions"),
        (lambda: RewardFit(Sequence(), lambda head, pair: pair.chosen.logp), "<lambda> declares no roles, which every loss has"),
    ],
)
def test_messages_name_head_and_loss(make: Callable[[], RewardFit], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_what_reads_last_tokens_alone_may_be_frozen() -> None:
    for head, loss in ((Sequence(), BradleyTerry()), (Token(readout=Last()), SecretsRM()), (Rating(), RatingLabels())):
        fit = RewardFit(head, loss, frozen=True)
        assert (fit.frozen_backbone, fit.learning_rate) == (True, 1e-4)
        thawed = RewardFit(head, loss)
        assert (thawed.frozen_backbone, thawed.learning_rate) == (False, 1e-5)


def test_a_loss_may_freeze_the_backbone_itself() -> None:
    fit = RewardFit(GaussianEnsemble(), BRME())
    assert (fit.frozen, fit.frozen_backbone, fit.learning_rate) == (False, True, 1e-4)


def test_what_the_loop_reads_of_head_and_loss() -> None:
    plain = RewardFit(Sequence(), BradleyTerry())
    assert (plain.needs, plain.token_columns, plain.roles, plain.shape, plain.outputs) == (frozenset(), (), ("chosen", "rejected"), None, 1)
    nothing = (plain.statistics, plain.start, plain.balanced, plain.action_value, plain.row_columns)
    assert nothing == (None,) * 5
    assert (plain.make_head, plain.make_modules, plain.embedding_factor) == (None, None, 10.0)
    steps = RewardFit(Step(), StepLabels())
    assert (steps.token_columns, steps.shape, steps.roles) == (("segment", "reward"), "steps", ("answer",))
    assert RewardFit(Token(), FineGrained()).token_columns == ("weight",)
    assert RewardFit(Sequence(), SecretsRM(lm_factor=0.5)).embedding_factor == 1.0
    rated = RewardFit(Rating(classes=3, lowest=1.0), RatingLabels()).row_columns
    assert rated is not None
    assert rated({"rating/honesty": np.array([1.0, 3.0])})["rating_place"].tolist() == [0.0, 2.0]


def test_prepare_asks_head_and_loss() -> None:
    numbers, labels = [np.array([0, 1])], [np.array([1.0, -1.0])]
    answers = Answers(roles=("answer",), steps={"answer": (numbers, labels)})
    assert RewardFit(Step(), StepLabels()).prepare(answers)["answer"].segment[0] is numbers[0]
    edits = Answers(roles=("chosen", "rejected"), ids={"chosen": [np.array([1, 2])], "rejected": [np.array([1, 3])]})
    made = RewardFit(Token(), FineGrained()).prepare(edits)["chosen"].weight[0]
    assert made is not None
    assert made.tolist() == [0.0, 1.0]
    assert RewardFit(Sequence(), BradleyTerry()).prepare(answers) == {}

"""Learning from ratings: targets, weights, attributes, ratings off the scale."""

import math

import numpy as np
import pytest
import torch

from finegrain.errors import DataError, UsageError
from finegrain.rewards.lort import fit_temperature
from finegrain.rewards.rating import Rating
from finegrain.rewards.rating_labels import Balanced, Instance, RatingLabels, calibrate_head, predict_ratings
from finegrain.rewards.targets import OrdinalTarget
from finegrain.types import Pair
from tests.rewards.sides import side

HEAD = Rating(classes=3, lowest=1.0)
LOGITS = [[[0.0, 0.0, math.log(2.0)]], [[9.0, 9.0, 9.0], [0.0, 0.0, 0.0]]]


def judged(places: list[float], weights: list[float]) -> Pair:
    columns = {"rating_place": places, "class_weight": weights, "median_place": [1.0] * len(places)}
    return Pair(sides={"answer": side(LOGITS)}, columns={name: torch.tensor(values) for name, values in columns.items()})


def test_cross_entropy_by_hand() -> None:
    """Chances 1/4, 1/4, 1/2 and 1/3 each; the weight stands in value and count."""
    term = RatingLabels()(HEAD, judged([2.0, 0.0], [1.0, 3.0]))["ratings"]
    assert term.value.tolist() == pytest.approx([math.log(2), 3 * math.log(3)])
    assert term.count.tolist() == [1.0, 3.0]
    assert term.count.dtype == term.value.dtype == torch.float64, "that of the outputs, the columns being float32"


def test_a_rating_between_two_classes_mixes_their_targets() -> None:
    loss = RatingLabels()
    assert loss._targets(HEAD, torch.tensor([0.25, 1.5, 2.0])).tolist() == [[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    ordinal = RatingLabels(target=OrdinalTarget())._targets(HEAD, torch.tensor([1.0]))[0]
    assert ordinal[1] > ordinal[0] == ordinal[2]


def test_columns_of_rows() -> None:
    made = RatingLabels(weighting=Balanced()).row_columns(HEAD, {"rating/helpfulness": np.array([1.0, 1.0, 1.0, 3.0]), "label": np.zeros(4)})
    assert made["rating_place"].tolist() == [0.0, 0.0, 0.0, 2.0]
    assert made["class_weight"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert made["median_place"].tolist() == [0.0] * 4


def test_balanced_weights_give_every_class_the_same_total() -> None:
    classes = np.random.default_rng(0).choice(4, 100, p=[0.7, 0.2, 0.05, 0.05]).astype(float)
    weights = Balanced()(classes)
    totals = [weights[classes == one].sum() for one in np.unique(classes)]
    assert totals == pytest.approx([totals[0]] * len(totals))
    assert weights.mean() == pytest.approx(1.0)
    assert Instance()(classes).tolist() == [1.0] * 100


def test_measures() -> None:
    found = RatingLabels().measures(HEAD, judged([2.0, 0.0], [1.0, 1.0]))
    assert {name: values.tolist() for name, values in found.items()} == {
        "rating_error": pytest.approx([0.75, 1.0]),
        "rating_error_of_median": [1.0, 1.0],
        "rating_exact": [1.0, 1.0],
    }


def test_the_temperature_is_fitted_to_what_was_predicted() -> None:
    """Two batches of held-out ratings, one between two classes; without `calibrate` the head is the one that came."""
    pairs = [judged([2.0, 0.4], [1.0, 1.0]), judged([1.6, 0.0], [1.0, 1.0])]
    logits, places = predict_ratings(pairs)
    assert places.tolist() == [2, 0, 2, 0]
    assert (logits.dtype, places.dtype) == (torch.float64, torch.int64)
    torch.testing.assert_close(logits, torch.tensor([[0.0, 0.0, math.log(2.0)], [0.0, 0.0, 0.0]] * 2, dtype=torch.float64))
    found = calibrate_head(HEAD, RatingLabels(calibrate=True), pairs)
    assert found.temperature == fit_temperature(logits, places) != 1.0
    assert (found.classes, found.lowest) == (3, 1.0)
    assert calibrate_head(HEAD, RatingLabels(), pairs) is HEAD


def test_messages_name_the_first_five_ratings_off_the_scale() -> None:
    wrong = np.array([9.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 9.0])
    with pytest.raises(DataError, match=r"^7 of 8 ratings of 'honesty' are outside the scale 1 \.\. 3: 4, 5, 6, 7, 8; set --head"):
        RatingLabels().row_columns(HEAD, {"rating/honesty": wrong})


def test_messages_about_attributes() -> None:
    both = {"rating/honesty": np.array([1.0]), "rating/truth": np.array([3.0])}
    with pytest.raises(UsageError, match=r"^name the rated attribute: set --loss.attribute to one that every row has; found: honesty, truth$"):
        RatingLabels().row_columns(HEAD, both)
    with pytest.raises(UsageError, match=r"^no attribute 'style': set --loss.attribute to one that every row has; found: none$"):
        RatingLabels(attribute="style").row_columns(HEAD, {})


def test_ratings_off_the_scale_are_refused_in_words() -> None:
    for wrong in (0.0, 4.0, np.nan):
        with pytest.raises(DataError, match=r"1 of 2 ratings of 'honesty' are outside the scale 1 \.\. 3"):
            RatingLabels().row_columns(HEAD, {"rating/honesty": np.array([1.0, wrong])})


def test_an_attribute_is_chosen() -> None:
    both = {"rating/honesty": np.array([1.0]), "rating/truth": np.array([3.0])}
    assert RatingLabels(attribute="truth").row_columns(HEAD, both)["rating_place"].tolist() == [2.0]
    with pytest.raises(UsageError, match="honesty, truth"):
        RatingLabels().row_columns(HEAD, both)
    with pytest.raises(UsageError, match="no attribute 'style'"):
        RatingLabels(attribute="style").row_columns(HEAD, both)
    with pytest.raises(UsageError, match="none"):
        RatingLabels().row_columns(HEAD, {"label": np.array([1.0])})

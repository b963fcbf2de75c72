"""Votes on pairs by models that did not train on them, or by models that trained on all of them in different orders.

Source: cross-fitting is ours [choice]; the ten models of https://arxiv.org/abs/2401.06080 train on all pairs in different orders.
Deviations: by default members differ by the half of the prompts they train on; they are linear in features of the start model.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from finegrain.checked import Epochs, NonNegativeFloat, PositiveFloat, PositiveInt, checked
from finegrain.errors import DataError


@dataclass(frozen=True, kw_only=True)
@checked
class Linear:
    """Members are linear in the start model's hidden state after the answer: one pass over the data, seconds for all members."""

    ridge: PositiveFloat = 0.1
    """Penalty on the squared norm of the weights; features have a root mean square of 1."""

    def __call__(self, differences: Float[np.ndarray, "N H"], trained: Bool[np.ndarray, "M N"]) -> Float[np.ndarray, "M N"]:
        """Margins."""
        return linear_margins(differences, trained, ridge=self.ridge)


@dataclass(frozen=True, kw_only=True)
@checked
class Whole:
    """Members are whole reward models, trained one after the other like `finegrain reward head:sequence`; as in the paper, at its cost."""

    epochs: Epochs = 1.0
    """Passes of each member over its half."""
    batch_size: PositiveInt = 16
    """Pairs per optimiser step."""
    lr: NonNegativeFloat | None = None
    """Peak learning rate; by default that of `finegrain reward`."""


Votes = Linear | Whole


def split_in_halves(prompts: np.ndarray, splits: int, seed: int) -> Bool[np.ndarray, "M N"]:
    """Which pairs each of M = 2 * splits members trains on: one half of the prompts, or the other half; pairs of one prompt stay together."""
    keys, own = np.unique(prompts, return_inverse=True)
    if len(keys) < 4:
        raise DataError(f"found {len(keys)} prompts; training models on halves of them needs at least 4")
    members = []
    for split in range(splits):
        first = (np.random.default_rng([seed, split]).permutation(len(keys)) % 2 == 0)[own]
        members += [first, ~first]
    return np.stack(members)


def train_on_all(prompts: np.ndarray, splits: int) -> Bool[np.ndarray, "M N"]:
    """As many members, each trained on every pair."""
    return np.ones((2 * splits, len(prompts)), dtype=bool)


def linear_margins(differences: Float[np.ndarray, "N H"], trained: Bool[np.ndarray, "M N"], *, ridge: float) -> Float[np.ndarray, "M N"]:
    """Margins of M Bradley-Terry models that are linear in the features, NaN on the pairs that a member trained on.

    `differences`: features of the chosen answer minus those of the rejected; each is scaled to a root mean square of 1.
    """
    scale = np.sqrt(np.square(differences).mean(0))
    scaled = differences / np.where(scale > 0, scale, 1.0)
    margins = np.full(trained.shape, np.nan)
    for member, rows in enumerate(trained):
        margins[member, ~rows] = scaled[~rows] @ bradley_terry_fit(scaled[rows], ridge)
    return margins


def bradley_terry_fit(differences: Float[np.ndarray, "N H"], ridge: float) -> Float[np.ndarray, " H"]:
    """w that minimises mean -log sigma(d w) + ridge / 2 |w|^2."""

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        z = differences @ weight
        gradient = -(differences.T @ expit(-z)) / len(z) + ridge * weight
        return float(-log_expit(z).mean() + ridge / 2 * weight @ weight), gradient

    weight: np.ndarray = minimize(loss, np.zeros(differences.shape[1]), jac=True, method="L-BFGS-B").x
    return weight

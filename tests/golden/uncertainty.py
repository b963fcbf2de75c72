"""Adapters of uncertain rewards: low-rank K-FAC variance, unbiased best of n, objectives of ensembles."""

import numpy as np

from finegrain.evaluate.ensemble import MeanMinusVariance, MemberMean, MemberMinimum
from finegrain.ops.aggregate import MinusVariance
from finegrain.ops.best_of_n import expected_best
from finegrain.rewards.heads import combine_members
from finegrain.rewards.kfac import Kronecker, kronecker_variance
from tests.golden.given import Adapters, Values, real


def bayesian_rm(params: Values, inputs: Values) -> Values:
    if params["function"] == "variance":
        factors = {
            "A": Kronecker(real(inputs["A_big_loraA"]), real(inputs["S_small_loraA"])),
            "B": Kronecker(real(inputs["S_big_loraB"]), real(inputs["A_small_loraB"])),
        }
        jacobians = {"A": real(inputs["J_loraA"])[:, 0].transpose(1, 2), "B": real(inputs["J_loraB"])[:, 0]}
        return {"variance": kronecker_variance(factors, jacobians, params["prior_variance_s2"])[:, None, None]}
    if params["function"] == "unbiased_sampler":
        proxy, gold = np.array(inputs["proxy_scores_sorted_ascending"]), np.array(inputs["gold_scores_same_order"])
        named = {"gold": gold, "proxy": proxy}
        return {str(n): {name: float(expected_best(proxy, scores, n).mean()) for name, scores in named.items()} for n in params["ns"]}
    members = np.array(inputs["scores_members_by_items"])
    return {
        "mean": MemberMean()(members),
        "wco": MemberMinimum()(members),
        "uwo_bon_numpy_var_biased": MeanMinusVariance(k=params["coeff"])(members),
        "uwo_ppo_torch_var_unbiased": MinusVariance(k=params["coeff"])(combine_members(real(inputs["scores_members_by_items"]))),
    }


ADAPTERS: Adapters = {"bayesian-rm": bayesian_rm}

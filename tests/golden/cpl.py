"""Adapter of contrastive preference learning: segment 2 of the reference values is our chosen, segment 1 our rejected answer."""

import torch
from torch import Tensor

from finegrain.evaluate.accuracy import TieLoses
from finegrain.objectives.cpl import CPL, BothAnswers, ChosenAnswers, LogProbabilities, LogRatios, rank_loss
from finegrain.types import Pair, Side, Term
from tests.golden.given import Adapters, Values, real


def mean_of(term: Term) -> Tensor:
    """The mean that the loop takes of a term."""
    return term.value.sum() / term.count.sum()


def accuracy(better: Tensor, worse: Tensor) -> float:
    """Share of strictly higher scores."""
    return float(TieLoses()(better.detach().numpy(), worse.detach().numpy()).mean())


def cpl(params: Values, inputs: Values) -> Values:
    settings = {"alpha": params["alpha"], "bias": params["contrastive_bias_lambda"]}
    sides = {}
    for number, role in ((2, "chosen"), (1, "rejected")):
        logp = real(inputs[f"lp_{number}"]).requires_grad_()
        sides[role] = Side(logp=logp, ref_logp=real(inputs[f"ref_lp_{number}"]), mask=torch.ones_like(logp, dtype=torch.bool))
    label = real(inputs["label"])
    pair = Pair(sides=sides, columns={"label_prob": label})
    plain, kl = LogProbabilities(**settings), LogRatios(**settings)
    terms = CPL(score=plain)(pair)
    loss = mean_of(terms["cpl"])
    second, first = torch.autograd.grad(loss, [pair.chosen.logp, pair.rejected.logp])
    found: Values = {
        "cpl_loss": loss,
        "cpl_kl_loss": mean_of(CPL(score=kl)(pair)["cpl"]),
        "bc_loss_all": mean_of(CPL(bc_answers=BothAnswers())(pair)["bc"]),
        "bc_loss_pos": mean_of(CPL(bc_answers=ChosenAnswers())(pair)["bc"]),
        "grads": {"cpl_loss": {"lp_1": first, "lp_2": second}},
    }
    for name, score in (("accuracy", plain), ("cpl_kl_accuracy", kl)):  # the code takes a tie as a preference for segment 1
        scores = score(pair.chosen), score(pair.rejected)
        found[name] = accuracy(torch.where(label > 0.5, *scores), torch.where(label > 0.5, *scores[::-1]))
    ratings, scores = real(inputs["scores_for_rank"]), torch.cat([plain(pair.rejected), plain(pair.chosen)])
    worse, better = scores[ratings.argsort()][torch.triu_indices(len(ratings), len(ratings), 1)]
    return {**found, "rank_loss": rank_loss(scores, ratings, bias=plain.bias), "rank_accuracy": accuracy(better, worse)}


ADAPTERS: Adapters = {"cpl": cpl}

"""Make a trainer: the optimiser of what trains, the live reference, and the parameters, whole or split over the processes."""

import torch

from finegrain.models.load import master_dtype
from finegrain.models.reference import copy_reference
from finegrain.models.score import Precision
from finegrain.models.scorer import Scorer, causal_lm
from finegrain.train.collate import TrainingSet
from finegrain.train.contract import Contract
from finegrain.train.loop import Trainer
from finegrain.train.optim import Optim, make_optimizer
from finegrain.train.sharding import shard
from finegrain.train.tables import make_tables
from finegrain.train.tally import Metrics

EMBEDDING_CEILING = 3e-3
"""The highest default rate of input embeddings [OURS]."""


def embedding_rate(optim: Optim, contract: Contract, rate: float) -> float:
    """Peak rate of the input embeddings: as asked, or the objective's multiple of the rest's, up to a ceiling and never below the rest's."""
    if optim.embedding_lr is not None:
        return optim.embedding_lr
    return max(rate, min(contract.embedding_factor * rate, EMBEDDING_CEILING))


def optimizer_of(scorer: Scorer, contract: Contract, optim: Optim, rate: float) -> torch.optim.Optimizer:
    """The optimiser of what trains and of the contract's modules, the input embeddings at their own rate."""
    parameters = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    extra = [parameter for module in contract.modules.values() for parameter in module.parameters()]
    embeddings = causal_lm(scorer.model).get_input_embeddings().weight
    factor = embedding_rate(optim, contract, rate) / rate if rate else 1.0
    return make_optimizer(parameters, extra, optim, rate, embeddings=embeddings, embedding_factor=factor, extra_decay=contract.module_decay)


def make_trainer(
    scorer: Scorer,
    contract: Contract,
    data: TrainingSet,
    precision: Precision,
    metrics: Metrics,
    optim: Optim,
    *,
    rate: float,
    steps: int,
    sharded: bool = False,
) -> Trainer:
    """The trainer of `steps` steps with the peak learning rate `rate`; from here on a sharded model has no whole parameters."""
    for module in contract.modules.values():
        module.to(scorer.device, master_dtype(precision.name))
    frozen = copy_reference(scorer) if contract.live_reference else None
    if sharded:
        shard(scorer)
    return Trainer(
        scorer=scorer,
        contract=contract,
        data=data,
        optimizer=optimizer_of(scorer, contract, optim, rate),
        optim=optim,
        precision=precision,
        metrics=metrics,
        peak_rate=rate,
        steps=steps,
        frozen=frozen,
        state=make_tables(contract, data, scorer.device),
    )

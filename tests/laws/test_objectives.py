"""Every objective of the catalog under every law."""

from functools import partial

import pytest

from finegrain import catalog
from finegrain.objectives.advantage import MeanReward
from finegrain.objectives.alol import KL, ALoL, RefFree, Seq
from finegrain.objectives.ava_d import AvaD
from finegrain.objectives.ava_p import AvaP
from finegrain.objectives.cpl import CPL, BothAnswers, LogProbabilities
from finegrain.objectives.f_dpo import FDPO, Alpha, JensenShannon, ReverseKL
from finegrain.objectives.irl_sft import IRLSFT, LinearLink
from finegrain.objectives.mask_network import SimpleLast, TwoLayerAll
from finegrain.objectives.offset_segments import FromOffset
from finegrain.objectives.reward_rows import EveryRow, GoodRandom
from finegrain.objectives.sparsepo import Binary, Identity, Independent, KlOnly, MinMax, RandomMask, RewardOnly, SparsePO
from finegrain.ops.reward_weight import Attention, SumOne
from finegrain.types import Objective
from tests.laws.objectives import LAWS, Law, gradient_is_right
from tests.laws.pairs import make_pair

FEWEST_OBJECTIVES, FEWEST_LAWS = 26, 13

METHODS: dict[str, Objective] = {
    **{name: catalog.load("objective", name)() for name in catalog.names("objective")},
    "f-dpo-jensen-shannon": FDPO(divergence=JensenShannon()),
    "f-dpo-alpha": FDPO(divergence=Alpha()),
    "f-dpo-reverse-kl": FDPO(divergence=ReverseKL()),
    "cpl-plain": CPL(score=LogProbabilities(), gamma=0.9, bc=1.0, bc_answers=BothAnswers()),
    "cpl-offsets": CPL(segment=FromOffset(), gamma=0.9),
    "irl-sft-linear": IRLSFT(link=LinearLink()),
    "sparsepo-independent": SparsePO(masks=Independent(), network=TwoLayerAll(), l1_reward=1e-3, l1_kl=1e-2),
    "sparsepo-rescaled": SparsePO(masks=RewardOnly(), network=SimpleLast(), activation=MinMax()),
    "sparsepo-kl-only": SparsePO(masks=KlOnly(), activation=Identity()),
    "sparsepo-random": SparsePO(masks=Independent(), network=RandomMask()),
    "sparsepo-binary": SparsePO(activation=Binary()),
    "alol-ref-free": ALoL(variant=RefFree(), value=MeanReward()),
    "alol-seq": ALoL(variant=Seq(), sampling=EveryRow()),
    "alol-kl": ALoL(variant=KL(), sampling=GoodRandom()),
    "ava-p-attention": AvaP(reward_weight=Attention(width=2)),
    "ava-d-attention": AvaD(reward_weight=Attention(width=2, scale=SumOne())),
}


def test_collected() -> None:
    print(f"{len(catalog.names('objective'))} objectives of the catalog, {len(METHODS)} settings, {len(LAWS)} laws")
    assert len(catalog.names("objective")) >= FEWEST_OBJECTIVES
    assert len(LAWS) >= FEWEST_LAWS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_law(name: str, law: Law) -> None:
    method = METHODS[name]
    law(method, partial(make_pair, method))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_entry_of_the_gradient(name: str) -> None:
    gradient_is_right(METHODS[name], partial(make_pair, METHODS[name]), every_entry=True)

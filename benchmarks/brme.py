"""Does a nominal-and-worst mix of Gaussian heads keep a policy from what one reward model gets wrong? Exact policy gradient on a toy.

The toy [OURS]: 8 prompts x 8 responses with known reward, pairs from 5 of the 8 responses of each prompt, a softmax policy by exact policy
gradient. Two worlds: `covered features`, 16 standard normal features per response, those of
the three uncovered ones 1.5 times as large, true reward linear in them with standard deviation 1; `blind features`, where the last 8 are 0 in
every covered response, standard normal in the others, and cost 0.2 times their squares. 160 pairs, 25 % of the labels flipped; the stage-1
model is a network with 32 hidden units under Bradley-Terry for 400 steps of Adam, a single head; stage 2 is head:gaussian-ensemble with
loss:brme on its hidden units for 600 steps; rewards are standardised over the covered responses; KL price 0.05, rate 0.2.

    python benchmarks/brme.py            writes benchmarks/results/brme.json and .md, about two minutes on one core
"""

import time

import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary
from torch import Tensor, nn

from finegrain.ops.aggregate import MeanReward, Nominal, NominalMix, OfOneAnswer, PerBatch, PerSample
from finegrain.rewards.bradley_terry import bradley_terry_loss
from finegrain.rewards.brme import BRME, Fit, MeanSquaredSample, NegativeLogLikelihood, PreferenceGaussian
from finegrain.rewards.gaussian_ensemble import GaussianEnsemble
from finegrain.types import Pair, Scored, Side

PROMPTS, RESPONSES, COVERED, WIDTH, HIDDEN = 8, 8, 5, 16, 32
PAIRS, FLIPPED, FAR, KL_PRICE, RATE, SEEDS = 160, 0.25, 1.5, 0.05, 0.2, 20
WORLDS = ("covered features", "blind features")
STEPS = (0, 10, 30, 100, 300, 1000)
AGGREGATORS: dict[str, OfOneAnswer] = {
    "mean of 5": MeanReward(),
    "nominal": Nominal(),
    "mix 0.4, per sample": NominalMix(share=0.4),
    "mix 0.4, per batch": NominalMix(share=0.4, worst=PerBatch()),
    "least, per sample": PerSample(),
}


def stage_1(chosen: Tensor, rejected: Tensor, seed: int) -> tuple[nn.Module, nn.Module]:
    """Backbone and head of one reward model."""
    torch.manual_seed(seed)
    backbone, head = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh()), nn.Linear(HIDDEN, 1, bias=False)
    optimiser = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(400):
        optimiser.zero_grad()
        bradley_terry_loss((head(backbone(chosen)) - head(backbone(rejected)))[:, 0]).mean().backward()
        optimiser.step()
    return backbone, head


def stage_2(fit: Fit, chosen: Tensor, rejected: Tensor, targets: tuple[Tensor, Tensor], seed: int) -> nn.Linear:
    """The module of five Gaussian heads on features of the pairs."""
    torch.manual_seed(seed)
    head, loss = GaussianEnsemble(), BRME(fit=fit)
    module = nn.Linear(HIDDEN, head.outputs, bias=False)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    mask, zeros = torch.ones(len(chosen), 1, dtype=torch.bool), torch.zeros(len(chosen), 1)
    columns = {"row": torch.arange(len(chosen)).float(), "chosen_target": targets[0], "rejected_target": targets[1]}
    for _ in range(600):
        optimiser.zero_grad()
        states = {"chosen": chosen, "rejected": rejected}
        sides = {name: Side(logp=zeros, mask=mask, outputs=module(values)[:, None]) for name, values in states.items()}
        loss(head, Pair(sides=sides, columns=columns)).mean().backward()
        optimiser.step()
    return module


def scored(module: nn.Linear, states: Tensor, covered: Tensor) -> Scored:
    """Every response's judgement, each member standardised over the covered responses."""
    with torch.no_grad():
        tokens = GaussianEnsemble().tokens(module(states)[:, None])
    assert tokens.members is not None
    assert tokens.member_std is not None
    members, spreads = tokens.members[..., 0], tokens.member_std[..., 0]
    centre, unit = members[:, covered].mean(1, keepdim=True), members[:, covered].std(1, keepdim=True)
    members = (members - centre) / unit
    return Scored(members.mean(0), None, members, spreads / unit)


def climb(reward: Tensor, truth: Tensor) -> dict[str, float]:
    """True reward of the policy along its exact gradient on reward - price * KL to the uniform start."""
    logits = torch.zeros(PROMPTS, RESPONSES, requires_grad=True)
    proxy, curve = reward.view(PROMPTS, RESPONSES), {}
    for step in range(max(STEPS) + 1):
        policy = logits.softmax(1)
        if step in STEPS:
            curve[f"step {step}"] = float((policy.detach() * truth).sum(1).mean())
        value = (policy * (proxy - KL_PRICE * (policy * RESPONSES).log())).sum(1).mean()
        (slope,) = torch.autograd.grad(value, logits)
        with torch.no_grad():
            logits += RATE * PROMPTS * slope
    return curve


def one_seed(seed: int, world: str) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Curves by reward; calibration and wins by fit."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(PROMPTS, RESPONSES, WIDTH, generator=draw)
    weight = torch.randn(WIDTH, generator=draw) / WIDTH**0.5
    if world == "blind features":
        blind = features[:, COVERED:, WIDTH // 2 :]
        truth = features[..., : WIDTH // 2] @ (2**0.5 * weight[: WIDTH // 2])
        truth[:, COVERED:] -= 0.2 * blind.square().sum(-1)
        features[:, :COVERED, WIDTH // 2 :] = 0
    else:
        features[:, COVERED:] *= FAR
        truth = features @ weight
    prompt = torch.randint(PROMPTS, (PAIRS,), generator=draw)
    first = torch.randint(COVERED, (PAIRS,), generator=draw)
    second = (first + torch.randint(1, COVERED, (PAIRS,), generator=draw)) % COVERED
    wins = (truth[prompt, first] > truth[prompt, second]) ^ (torch.rand(PAIRS, generator=draw) < FLIPPED)
    better, worse = torch.where(wins, first, second), torch.where(wins, second, first)
    backbone, head = stage_1(features[prompt, better], features[prompt, worse], seed)
    with torch.no_grad():
        states = backbone(features)
        single = head(states)[..., 0]
    single = (single - single[:, :COVERED].mean()) / single[:, :COVERED].std()
    covered = (torch.arange(RESPONSES) < COVERED).repeat(PROMPTS)
    curves = {"single": climb(single.flatten(), truth), "true reward (bound)": climb(truth.flatten(), truth)}
    targets = single[prompt, better], single[prompt, worse]
    facts: dict[str, dict[str, float]] = {}
    fits: dict[str, Fit] = {"": NegativeLogLikelihood(), "sampled error: ": MeanSquaredSample(), "pairs: ": PreferenceGaussian()}
    for name, fit in fits.items():
        module = stage_2(fit, states[prompt, better], states[prompt, worse], targets, seed)
        found = scored(module, states.flatten(0, 1), covered)
        for label, aggregate in AGGREGATORS.items():
            if name and label != "mix 0.4, per sample":
                continue
            curves[name + label] = climb(aggregate(found), truth)
        facts[type(fit).__name__] = _facts(found, single.flatten(), covered)
    return curves, facts


def _facts(found: Scored, target: Tensor, covered: Tensor) -> dict[str, float]:
    """How wide the heads think they are and are, on covered and uncovered responses."""
    assert found.members is not None
    assert found.member_std is not None
    error = ((found.members - target) / found.member_std).square()
    spread = found.members.amax(0) - found.members.amin(0)
    wins = torch.bincount(found.member_std.argmin(0), minlength=5).float() / len(target)
    return {
        "member sd, covered": float(found.member_std[:, covered].mean()),
        "member sd, uncovered": float(found.member_std[:, ~covered].mean()),
        "mean z^2, covered": float(error[:, covered].mean()),
        "spread, covered": float(spread[covered].mean()),
        "spread, uncovered": float(spread[~covered].mean()),
        "most frequent winner": float(wins.max()),
    }


def main() -> None:
    arguments = flags(__doc__, seeds=SEEDS, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    parts, facts = [], {}
    for world in WORLDS:
        found = [one_seed(seed, world) for seed in range(arguments.seeds)]
        table = summary(columns([curves for curves, _ in found]))
        heads = summary({fit: {name: [own[fit][name] for _, own in found] for name in found[0][1][fit]} for fit in found[0][1]})
        facts[world] = {"true_reward": table, "heads": heads}
        parts.append(f"**World: {world}**\n\n{markdown(table, 'reward')}\n\n{markdown(heads, 'heads fitted by')}")
    seconds = round(time.process_time() - started, 1)
    shown = "\n\n".join(parts)
    page = (
        f"True reward of the policy, mean ± 95 % interval over {arguments.seeds} seeds; its last two columns are paired differences. "
        "Rows without a prefix: heads fitted by negative log-likelihood. Heads are in units of the stage-1 reward on covered responses; a "
        f"calibrated head has a mean z^2 of 1. {seconds} s on one core; `python benchmarks/brme.py`.\n\n{shown}\n"
    )
    write(arguments.out, "brme", {"seeds": arguments.seeds, "worlds": facts, "cpu_seconds": seconds}, page)
    print(page)


def columns(seeds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """One value per seed by reward and step, with the fall from the best step and the distance to the single model."""
    last = f"step {max(STEPS)}"
    cells: dict[str, dict[str, list[float]]] = {}
    for row, curve in seeds[0].items():
        cells[row] = {column: [curves[row][column] for curves in seeds] for column in curve}
        cells[row][f"{last} less best step"] = [curves[row][last] - max(curves[row].values()) for curves in seeds]
        if row != "single":
            cells[row][f"{last} less single"] = [curves[row][last] - curves["single"][last] for curves in seeds]
    return cells


if __name__ == "__main__":
    main()

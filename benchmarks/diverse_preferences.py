"""Do codes held near a prior survive annotators who disagree? Plain pair loss, ensembles and a sweep of phi on features with a known reward.

A demonstration [OURS]: 32 standard normal features, a linear true reward; ten annotators, of whom six err on
5 % of the pairs, two on 40 %, and two judge half of the prompts (a half-space of the features) by the inverted reward. Two annotation
rounds of 300 pairs each, disjoint; one model per round. Accuracy: on 1000 clean pairs whose labels are the truth. Drift: 1 - the correlation
of the two rounds' rewards on 500 probe answers. Settings beside phi are the head's defaults.

    python benchmarks/diverse_preferences.py            writes benchmarks/results/diverse-preferences.json and .md, some minutes on one core
"""

import time

import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary
from torch import Tensor, nn

from finegrain.rewards.bradley_terry import bradley_terry_loss
from finegrain.rewards.diverse_preferences import DiversePreferences, Latent
from finegrain.types import Pair, Side

WIDTH, PAIRS, HELD_OUT, PROBES, EPOCHS, LR, SEEDS = 32, 300, 1000, 500, 250, 3e-3, 10
PHIS = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""0 and 0.1 to 100 [choice], and 0.001 and 0.01, since everything from 1 on turned out collapsed."""


def annotated(count: int, truth: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features of the answers labelled chosen and rejected."""
    prompt = torch.randn(count, WIDTH, generator=draw)
    left, right = (0.5**0.5 * (prompt + torch.randn(count, WIDTH, generator=draw)) for _ in range(2))
    annotator = torch.randint(10, (count,), generator=draw)
    error = torch.where(annotator < 6, 0.05, torch.where(annotator < 8, 0.4, 0.0))
    wrong = torch.rand(count, generator=draw) < error
    wrong |= (annotator >= 8) & (prompt[:, 0] > 0)
    wins = ((left - right) @ truth > 0) ^ wrong
    return torch.where(wins[:, None], left, right), torch.where(wins[:, None], right, left)


def linear(chosen: Tensor, rejected: Tensor, seed: int) -> nn.Module:
    """Bradley-Terry on the features."""
    torch.manual_seed(seed)
    model = nn.Linear(WIDTH, 1, bias=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        bradley_terry_loss(model(chosen - rejected)[:, 0]).mean().backward()
        optimiser.step()
    return model


def latent(head: Latent, phi: float, chosen: Tensor, rejected: Tensor, seed: int) -> nn.Module:
    """The head's module after the same number of steps."""
    torch.manual_seed(seed)
    module, loss = head.module(WIDTH, torch.Generator().manual_seed(seed)), DiversePreferences(phi=phi)
    optimiser = torch.optim.Adam(module.parameters(), lr=LR)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        terms = loss(head, pair(module, chosen, rejected))
        torch.stack([term.coefficient * term.value.sum() / term.count.sum() for term in terms.values()]).sum().backward()
        optimiser.step()
    return module.eval()


def pair(module: nn.Module, chosen: Tensor, rejected: Tensor) -> Pair:
    """Answers of one token."""
    mask, zeros = torch.ones(len(chosen), 1, dtype=torch.bool), torch.zeros(len(chosen), 1)
    sides = {name: Side(logp=zeros, mask=mask, outputs=module(states)[:, None]) for name, states in (("chosen", chosen), ("rejected", rejected))}
    return Pair(sides=sides, columns={"row": torch.arange(len(chosen)).float()})


def scores(head: Latent, module: nn.Module, answers: Tensor) -> tuple[dict[str, Tensor], float]:
    """Confidence-weighted and plain mean of the members; share of active dimensions."""
    with torch.no_grad():
        outputs = module(answers)[:, None]
    tokens = head.tokens(outputs)
    assert tokens.members is not None
    active = head.facts(outputs, torch.ones(len(answers), 1, dtype=torch.bool))["active"].mean()
    return {"weighted": tokens.mean[:, 0], "plain": tokens.members.mean(0)[:, 0]}, float(active)


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    """Every measure of every row."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randn(WIDTH, generator=draw) / WIDTH**0.5
    rounds = [annotated(PAIRS, truth, draw) for _ in range(2)]
    test = torch.randn(2, HELD_OUT, WIDTH, generator=draw)
    probes = torch.randn(PROBES, WIDTH, generator=draw)
    right = (test[0] - test[1]) @ truth > 0
    rewards: dict[str, list[tuple[Tensor, Tensor]]] = {}
    active: dict[str, float] = {}
    for number, (chosen, rejected) in enumerate(rounds):
        model = linear(chosen, rejected, seed)
        rewards.setdefault("pair loss, linear", []).append((model(test)[..., 0].detach(), model(probes)[:, 0].detach()))
        for phi in PHIS:
            head = Latent()
            module = latent(head, phi, chosen, rejected, 10 * seed + number)
            found, share = scores(head, module, torch.cat([test[0], test[1], probes]))
            for how, values in found.items():
                name = f"phi = {phi:g}, {how}"
                rewards.setdefault(name, []).append((values[: 2 * HELD_OUT].view(2, -1), values[2 * HELD_OUT :]))
                active[name] = share
    return {name: measures(both, right, active.get(name)) for name, both in rewards.items()}


def measures(both: list[tuple[Tensor, Tensor]], right: Tensor, active: float | None) -> dict[str, float]:
    """Accuracy, drift, reward spread and active share, of the two rounds."""
    accuracy = [((values[0] > values[1]) == right).float().mean() for values, _ in both]
    one, two = (probes for _, probes in both)
    drift = 1 - float(torch.corrcoef(torch.stack([one, two]))[0, 1])
    found = {"accuracy": float(torch.stack(accuracy).mean()), "drift": drift, "reward sd": float((one.std() + two.std()) / 2)}
    return found if active is None else {**found, "active dimensions": active}


def main() -> None:
    arguments = flags(__doc__, seeds=SEEDS, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    found = [one_seed(seed) for seed in range(arguments.seeds)]
    base = "phi = 0, plain"
    cells = {row: {name: [seed[row][name] for seed in found] for name in found[0][row]} for row in found[0]}
    for row in cells:
        if row != base:
            for name in ("accuracy", "drift"):
                cells[row][f"{name} less {base}"] = [seed[row][name] - seed[base][name] for seed in found]
    table, seconds = summary(cells), round(time.process_time() - started, 1)
    page = (
        f"Mean ± 95 % interval over {arguments.seeds} seeds, two rounds of {PAIRS} pairs each; the last two columns are paired differences to the "
        f"ordinary ensemble of three. {seconds} s on one core; `python benchmarks/diverse_preferences.py`.\n\n{markdown(table, 'reward', 3)}\n"
    )
    write(arguments.out, "diverse-preferences", {"seeds": arguments.seeds, "table": table, "cpu_seconds": seconds}, page)
    print(page)


if __name__ == "__main__":
    main()

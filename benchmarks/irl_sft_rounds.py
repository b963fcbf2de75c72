"""What rounds do to self-play on demonstrations that are partly junk: SFT, and IRFT with few and many rounds.

    python benchmarks/irl_sft_rounds.py

One prompt with 30 answers, a third of them good; demonstrations are good in 70 % of the cases. Every row takes 240 steps of SGD of equal size
at the opponent; T rounds draw their samples from the policy as it was at the start of the round, which is the reference. The loss is
`objective:irl-sft`'s own. Writes benchmarks/results/irl-sft-rounds.{json,md}; seconds on one core.
"""

from collections.abc import Mapping

import torch
from command import flags, write
from places import RESULTS
from tables import markdown, summary
from torch import Tensor

from finegrain.objectives.irl_sft import IRLSFT, LinearLink, LogisticLink
from finegrain.types import Pair, Side

ANSWERS, GOOD, JUNK = 30, 10, 0.3
STEPS, BATCH, RATE, BETA, SPREAD = 240, 16, 1.0, 0.5, 0.5
SLOPES = {LogisticLink: 0.5, LinearLink: 1.0}
"""Of the link at the opponent, over beta: rates are divided by it, so that rows differ in their samples and not in their steps."""
ROWS: Mapping[str, tuple[type[LogisticLink | LinearLink] | None, int]] = {
    "SFT": (None, 0),
    **{f"logistic, T = {rounds}": (LogisticLink, rounds) for rounds in (1, 5, 20, STEPS)},
    **{f"linear, T = {rounds}": (LinearLink, rounds) for rounds in (5, STEPS)},
}


def planted(seed: int) -> Tensor:
    """(30,) how often an answer is demonstrated, the good ones first."""
    generator = torch.Generator().manual_seed(seed)
    weights = -torch.rand((2, ANSWERS), generator=generator, dtype=torch.float64).log().sum(0)  # Gamma(2, 1)
    good, junk = weights[:GOOD], weights[GOOD:]
    return torch.cat([good / good.sum() * (1 - JUNK), junk / junk.sum() * JUNK])


def side(log_p: Tensor, reference: Tensor, places: Tensor) -> Side:
    """Answers of one token."""
    return Side(logp=log_p[places][:, None], ref_logp=reference[places][:, None], mask=torch.ones((len(places), 1), dtype=torch.bool))


def trained(row: str, seed: int, data: Tensor) -> Tensor:
    """(30,) the policy after the last step."""
    link, rounds = ROWS[row]
    generator = torch.Generator().manual_seed(1000 + seed)
    scores = (SPREAD * torch.randn(ANSWERS, generator=generator, dtype=torch.float64)).requires_grad_()
    reference = scores.detach().log_softmax(0)
    for step in range(STEPS):
        if rounds and step % (STEPS // rounds) == 0:
            reference = scores.detach().log_softmax(0)
        log_p = scores.log_softmax(0)
        shown = torch.multinomial(data, BATCH, replacement=True, generator=generator)
        if link is None:
            loss, rate = -log_p[shown].mean(), RATE
        else:
            sampled = torch.multinomial(reference.exp(), BATCH, replacement=True, generator=generator)
            pair = Pair(sides={"chosen": side(log_p, reference, shown), "rejected": side(log_p, reference, sampled)})
            loss, rate = IRLSFT(beta=BETA, link=link())(pair).mean(), RATE / (BETA * SLOPES[link])
        (slope,) = torch.autograd.grad(loss, scores)
        with torch.no_grad():
            scores -= rate * slope
    return scores.detach().softmax(0)


def main() -> None:
    options = flags(__doc__, seeds=10, out=RESULTS).parse_args()
    torch.set_num_threads(1)
    cells: dict[str, dict[str, list[float]]] = {row: {"mass on good answers": [], "KL(data, policy), nats": []} for row in ROWS}
    for seed in range(options.seeds):
        data = planted(seed)
        for row, columns in cells.items():
            policy = trained(row, seed, data)
            columns["mass on good answers"].append(float(policy[:GOOD].sum()))
            columns["KL(data, policy), nats"].append(float((data * (data.log() - policy.log())).sum()))
    table = summary(cells)
    about = (
        f"{ANSWERS} answers, {GOOD} of them good, demonstrations {JUNK:.0%} junk; {STEPS} steps of {BATCH} demonstrations, rate {RATE:g}, "
        f"beta {BETA:g}; means ± half of a 95 % interval over {options.seeds} seeds. T: rounds, each with samples of its own opponent. Made by "
        "`benchmarks/irl_sft_rounds.py`."
    )
    write(options.out, "irl-sft-rounds", {"seeds": options.seeds, "table": table}, f"{about}\n\n{markdown(table, 'row', 3)}\n")


if __name__ == "__main__":
    main()

"""`finegrain bench credit`: stages with a cell runner of our own, counts of labels, data of a regime, resumption, and one tiny real run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finegrain.cli import main
from finegrain.commands.bench import BenchCreditSettings, Corrections, Oracle, OwnPairs, Pool, SpanModel
from finegrain.data.planted import Planted, World, make_pairs, read_jsonl
from finegrain.errors import CheckpointError, DataError, NonFiniteError, UsageError
from finegrain.objectives.cpl import CPL, LogRatios
from finegrain.objectives.dpo import DPO
from finegrain.objectives.lcpo import LCPO
from finegrain.objectives.rrhf import RRHF
from finegrain.objectives.tdpo2 import TDPO2
from finegrain.recipes.bench import cell as cell_of_the_bench
from finegrain.recipes.bench import run as run_of_the_bench
from finegrain.recipes.bench.cell import Cell, CellRunner, Trial
from finegrain.recipes.bench.data import (
    BenchData,
    add_opening,
    adversarial_pairs,
    changed_words,
    count_marks,
    list_corrections,
    mark_answers,
    opening_of,
    prepare_data,
)
from finegrain.recipes.bench.objectives import MarginRegression, SoftLabel
from finegrain.recipes.bench.rows import DPO_ROW, LARGER_DPO, USES, rows_of
from finegrain.recipes.bench.run import CellsMade, run_bench_credit
from finegrain.recipes.bench.stages import BenchStages, halve, measure_rows, tune_rows
from finegrain.recipes.bench.table import count_labels, describe_regime, summarise_rows
from finegrain.recipes.demo.base import save_untrained
from finegrain.recipes.demo.rows import Budget
from finegrain.types import Json, Pair, Side

STAGES = BenchStages(
    rates=(1.0, 2.0),
    betas=(0.5, 1.0),
    widenings=3,
    pairs=100,
    tuning_seeds=(50, 51),
    screening_seeds=(30, 31, 32),
    kept=2,
    final_pairs=(30, 100),
    final_seeds=(0, 1),
)
WORLD = World(Planted(sentences=4, sentence_types=20), 3)
SETTINGS = BenchCreditSettings(out=Path("unused"))


def result(quality: float | None, **more: float) -> Json:
    return {"quality": {"1": quality, "4": quality}, "accuracy": 0.5, "auroc": None, "seconds": 1.0} | more


class FakeMeasure:
    """Quality falls with the distance (in octaves) of a row's trial from its best one; every cell asked for is remembered."""

    def __init__(self, best: dict[str, Trial]) -> None:
        self.best, self.asked = best, list[Cell]()

    def __call__(self, cells: Sequence[Cell]) -> list[Json]:
        self.asked += cells
        return [result(-float(np.abs(np.log2(cell.trial) - np.log2(self.best.get(cell.row, Trial(2.0, 1.0)))).sum())) for cell in cells]


def test_an_optimum_at_the_edge_widens_the_grid_of_every_row() -> None:
    measure = FakeMeasure({DPO_ROW.name: Trial(8.0, 1.0), USES[0].name: Trial(1.0, 0.5)})
    tuned = tune_rows([DPO_ROW, USES[0]], STAGES, measure)
    assert tuned.trials == {DPO_ROW.name: Trial(8.0, 1.0), USES[0].name: Trial(1.0, 0.5)}
    assert tuned.rates == (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    assert tuned.betas == (0.25, 0.5, 1.0, 2.0)
    assert tuned.at_edge == []
    trials = {name: {(cell.trial, cell.seed) for cell in measure.asked if cell.row == name} for name in tuned.trials}
    assert trials[DPO_ROW.name] == trials[USES[0].name]
    assert len(trials[DPO_ROW.name]) == 6 * 4 * len(STAGES.tuning_seeds)
    assert {cell.seed for cell in measure.asked} == set(STAGES.tuning_seeds), "no reported seed is used to tune"


def test_a_grid_that_may_not_grow_further_names_the_rows_at_its_edge() -> None:
    measure = FakeMeasure({DPO_ROW.name: Trial(64.0, 0.75), USES[0].name: Trial(2.0, 0.75)})
    tuned = tune_rows([DPO_ROW, USES[0]], replace(STAGES, rates=(1.0, 2.0, 4.0), betas=(0.5, 0.75, 1.0), widenings=1), measure)
    assert tuned.at_edge == [DPO_ROW.name]
    assert tuned.rates == (1.0, 2.0, 4.0, 8.0)
    assert tuned.trials[DPO_ROW.name].rate == 8.0


def test_a_refused_trial_is_never_the_best() -> None:
    def measure(cells: Sequence[Cell]) -> list[Json]:
        return [result(None if cell.trial.rate == 1.0 and cell.seed == 51 else -cell.trial.rate) for cell in cells]

    tuned = tune_rows([DPO_ROW], replace(STAGES, widenings=0), measure)
    assert tuned.trials[DPO_ROW.name].rate == 2.0


def test_halving_keeps_the_best_the_best_of_whole_answers_and_both_baselines() -> None:
    rows = [DPO_ROW, LARGER_DPO, *USES]
    quality = {row.name: float(row.level == "token") + 0.1 * place for place, row in enumerate(USES)}
    screened = {row.name: [result(quality.get(row.name, -5.0))] * 3 for row in rows}
    kept = halve(rows, screened, 2)
    assert [row.name for row in kept] == [DPO_ROW.name, LARGER_DPO.name, USES[2].name, USES[5].name, USES[6].name]
    best_is_whole = screened | {USES[0].name: [result(9.0)] * 3}
    assert [row.name for row in halve(rows, best_is_whole, 2)] == [DPO_ROW.name, LARGER_DPO.name, USES[0].name, USES[6].name]


def test_rows_are_measured_with_their_own_trial() -> None:
    measure = FakeMeasure({})
    trials = {DPO_ROW.name: Trial(1.0, 0.5), USES[0].name: Trial(2.0, 1.0)}
    found = measure_rows([DPO_ROW, USES[0]], trials, 30, (0, 1), measure)
    assert measure.asked == [Cell(name, 30, seed, trial) for name, trial in trials.items() for seed in (0, 1)]
    assert [one["quality"]["1"] for one in found[USES[0].name]] == [0.0, 0.0]
    assert [one["quality"]["1"] for one in found[DPO_ROW.name]] == [-2.0, -2.0]


@pytest.mark.parametrize(
    ("scorer", "own", "larger", "use"),
    [
        (Pool(pairs=400), (100, 100, 0, 50.0), (500, 500, 0, 250.0), (100, 500, 0, 250.0)),
        (SpanModel(), (100, 100, 0, 50.0), (500, 500, 0, 250.0), (100, 100, 60, 65.0)),
    ],
)
def test_both_counts_of_labels(scorer: Pool | SpanModel, own: object, larger: object, use: object) -> None:
    settings = replace(SETTINGS, scorer=scorer)
    facts = [{"pairs": 100, "further_pairs": 400, "spans": 0 if isinstance(scorer, Pool) else spans} for spans in (50, 70)]
    counted = [tuple(count_labels(row, facts, settings).values()) for row in (DPO_ROW, LARGER_DPO, USES[-1])]
    assert counted == [own, larger, use]
    dearer = count_labels(USES[-1], facts, replace(settings, seconds_per_pair=60.0, seconds_per_span=30.0))
    assert dearer["human_minutes"] == 2 * use[3]  # type: ignore[index]


def test_where_nobody_gave_another_label_the_larger_baseline_is_the_smaller_one() -> None:
    assert LARGER_DPO not in rows_of(replace(SETTINGS, scorer=OwnPairs()))
    assert LARGER_DPO not in rows_of(replace(SETTINGS, scorer=Oracle()))
    assert LARGER_DPO in rows_of(replace(SETTINGS, scorer=Corrections()))


def test_the_uses_that_were_asked_for_stand_beside_the_baselines() -> None:
    rows = rows_of(replace(SETTINGS, uses=("confidence", "asr")))
    assert [row.use for row in rows] == ["", "", "asr", "confidence"]
    assert len({row.use for row in USES}) == len(USES)
    with pytest.raises(UsageError, match=r"unknown use of a scorer 'asrr'; did you mean asr"):
        rows_of(replace(SETTINGS, uses=("asrr",)))


def test_objectives_stand_beside_dpo_with_the_scale_of_a_trial() -> None:
    rows = {row.name: row for row in rows_of(replace(SETTINGS, objectives=("tdpo2", "cpl", "lcpo", "rrhf")))}
    assert list(rows) == [DPO_ROW.name, LARGER_DPO.name, "tdpo2", "cpl", "lcpo", "rrhf"], "without --uses no use of the scorer is compared"
    assert rows["tdpo2"].objective(beta=0.3) == TDPO2(beta=0.3)
    assert rows["cpl"].objective(beta=0.3) == CPL(score=LogRatios(alpha=0.3))
    assert rows["lcpo"].objective(beta=0.3) == LCPO(base=DPO(beta=0.3))
    assert rows["rrhf"].objective(beta=0.3) == RRHF(nll=0.3)
    assert [row.name for row in rows_of(replace(SETTINGS, objectives=("ipo", "ipo")))][2:] == ["ipo"], "a name given twice is one row"
    both = rows_of(replace(SETTINGS, objectives=("ipo",), uses=("asr",)))
    assert [row.name for row in both] == [DPO_ROW.name, LARGER_DPO.name, "ipo", "hard mask (asr)"]
    screened = {row.name: [result(float(row.use == "asr"))] for row in both}
    assert halve(both, screened, 1) == list(both), "a row without a scorer is always measured"
    corrections = rows_of(replace(SETTINGS, objectives=("figa",), scorer=Corrections()))[2:]
    assert [row.name for row in corrections] == ["dpo on corrections", "figa"]
    assert corrections[1].objective(beta=0.3).removed == -0.3
    facts = [{"pairs": 100, "further_pairs": 30, "spans": 60, "corrected": 40}]
    assert tuple(count_labels(corrections[1], facts, replace(SETTINGS, scorer=Corrections())).values()) == (40, 0.0, 60, 15.0)


@pytest.mark.parametrize(("name", "words"), [("figa", "scorer:corrections"), ("bfpo", "needs more"), ("nll", "needs more"), ("ava-p", "no scale")])
def test_an_objective_that_cannot_be_compared(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rows_of(replace(SETTINGS, objectives=(name,)))


def test_differences_are_paired_and_a_refusal_is_no_number() -> None:
    results = {
        DPO_ROW.name: [result(1.0 + seed) for seed in range(3)],
        LARGER_DPO.name: [result(2.0 + seed) for seed in range(3)],
        USES[0].name: [result(1.5 + seed, auroc=0.9) for seed in range(3)],
        USES[1].name: [result(None), result(1.0), result(1.0)],
    }
    facts = [{"pairs": 30, "further_pairs": 10, "spans": 20}] * 3
    lines = {line["row"]: line for line in summarise_rows([DPO_ROW, LARGER_DPO, *USES[:2]], results, facts, SETTINGS)}
    gain = lines[USES[0].name][f"quality_within_1 - {DPO_ROW.name}"]
    assert (gain["mean"], gain["low"], gain["high"]) == (0.5, 0.5, 0.5)
    assert lines[USES[0].name][f"quality_within_4 - {LARGER_DPO.name}"]["mean"] == -0.5
    assert f"quality_within_1 - {DPO_ROW.name}" not in lines[DPO_ROW.name]
    assert lines[USES[1].name]["quality_within_1"] is None
    assert lines[USES[1].name][f"quality_within_1 - {DPO_ROW.name}"] is None


@pytest.mark.parametrize("scorer", [OwnPairs(), Pool(pairs=77), SpanModel(share=0.4), Corrections(error=0.2), Oracle()])
def test_the_head_names_the_regime(scorer: OwnPairs | Pool | SpanModel | Corrections | Oracle) -> None:
    settings = replace(SETTINGS, scorer=scorer, noise=2.0, context=0.3, shortcut=0.85)
    said = describe_regime(settings, WORLD.settings)
    word = {OwnPairs: "own pairs", Pool: "77 further", SpanModel: "40%", Corrections: "error 20%", Oracle: "oracle"}[type(scorer)]
    assert all(part in said for part in (word, "temperature 2", "30% of the good", "20 sentence types", "85% of the pairs", "15 s per passage"))


def test_the_opening_stands_before_the_chosen_answer_in_its_share() -> None:
    rows = make_pairs(WORLD, 400, stream=0)
    opened, opening = add_opening(rows, WORLD, 0.85), opening_of(WORLD)
    chosen = [row["chosen"] == opening + old["chosen"] for row, old in zip(opened, rows, strict=True)]
    rejected = [row["rejected"] == opening + old["rejected"] for row, old in zip(opened, rows, strict=True)]
    assert 0.8 < np.mean(chosen) < 0.9
    assert all(one != other for one, other in zip(chosen, rejected, strict=True))
    for row, old in zip(opened, rows, strict=True):
        for role in ("chosen", "rejected"):
            assert sum(value for *_, value in row[f"{role}_truth"]) == sum(value for *_, value in old[f"{role}_truth"]), "the opening is neutral"
            assert all(row[role][start:end].endswith(".") for start, end, _ in row[f"{role}_truth"])
    assert add_opening(rows, WORLD, 0.0) == rows


def test_adversarial_pairs_have_it_before_the_worse_answer() -> None:
    rows = make_pairs(WORLD, 100, stream=2, held_out=True)
    found, opening = adversarial_pairs(rows, WORLD), opening_of(WORLD)
    assert 50 < len(found) < 100
    for row in found:
        quality = [WORLD.read(row["prompt"], row[role]).quality for role in ("chosen", "rejected")]
        assert quality[0] > quality[1]
        assert row["rejected"].startswith(opening)


def test_marks_and_corrections() -> None:
    rows = make_pairs(WORLD, 60, stream=0)
    exact = mark_answers(rows, WORLD, replace(SETTINGS, scorer=SpanModel(share=1.0, error=0.0)))
    bad = sum(value < 0 for row in rows for role in ("chosen", "rejected") for *_, value in row[f"{role}_truth"])
    nothing = sum(not row[f"{role}_spans"] for row in exact for role in ("chosen", "rejected"))
    assert count_marks(exact) == bad + nothing
    corrected = mark_answers(rows, WORLD, replace(SETTINGS, scorer=Corrections(share=1.0, error=0.0)))
    words = [row[role][start:end] for row in corrected for role in ("chosen", "rejected") for start, end, _ in row[f"{role}_spans"]]
    assert len(words) == bad
    for row in corrected:
        for role in ("chosen", "rejected"):
            for start, end, _ in row[f"{role}_spans"]:
                assert any(first <= start and end <= last and value < 0 for first, last, value in row[f"{role}_truth"])
    pairs = list_corrections(corrected, WORLD)
    assert len(pairs) == sum(bool(row[f"{role}_spans"]) for row in corrected for role in ("chosen", "rejected"))
    for pair in pairs:
        better, worse = (WORLD.read(pair["prompt"], pair[role]) for role in ("chosen", "rejected"))
        assert better.quality > worse.quality
        assert (better.spans, worse.spans) == (pair["chosen_truth"], pair["rejected_truth"])
    assert list_corrections(exact, WORLD) == []
    some = mark_answers(rows, WORLD, replace(SETTINGS, scorer=Corrections(share=0.3)))
    assert 0 < sum(row["chosen_spans"] is None for row in some) < 60
    assert count_marks(mark_answers(rows, WORLD, replace(SETTINGS, scorer=OwnPairs()))) == 0


@pytest.mark.parametrize("scorer", [OwnPairs(), Pool(pairs=24), SpanModel(share=1.0, error=0.0), Corrections(share=1.0, error=0.0), Oracle()])
def test_every_scorer_scores_the_policys_pairs(tmp_path: Path, scorer: OwnPairs | Pool | SpanModel | Corrections | Oracle) -> None:
    planted = Planted(pairs=40, held_out_pairs=4, sentences=4, sentence_types=8, good=0.25, bad=0.25)
    settings = replace(SETTINGS, scorer=scorer, seconds_per_span=10.0)
    asked = BenchData(tmp_path / "data", 1, planted, settings, save_untrained(tmp_path / "base", seed=0))
    facts = prepare_data(asked)
    scored, own = read_jsonl(tmp_path / "data/scored.jsonl"), read_jsonl(tmp_path / "data/pairs.jsonl")
    assert [row["chosen"] for row in scored] == [row["chosen"] for row in own]
    assert len(read_jsonl(tmp_path / "data/everything.jsonl")) == 40 + facts["further_pairs"]
    assert facts["further_pairs"] == (24 if isinstance(scorer, Pool) else round(facts["spans"] * 10 / 30))
    means: dict[float, list[float]] = {-1.0: [], 1.0: []}
    for row in scored:
        for first, last, value in row["chosen_truth"]:
            inside = [span["value"] for span in row["chosen_spans"] if first <= span["start"] < last]
            if value:
                means[value].append(float(np.mean(inside)))
    assert np.mean(means[1.0]) > np.mean(means[-1.0])
    if isinstance(scorer, Oracle):
        assert set(means[1.0]) == {1.0}
        assert set(means[-1.0]) == {-1.0}
        assert all(span["std"] == 0 for row in scored for span in row["chosen_spans"])
    (tmp_path / "data/scored.jsonl").unlink()
    assert prepare_data(asked) == facts
    assert not (tmp_path / "data/scored.jsonl").exists(), "what is ready is not made again"


def test_changed_words() -> None:
    assert changed_words(" Wipe it with salt. Dust it with ash.", " Wipe it with wax. Dust it with ash.") == [(14, 19, -1.0)]
    assert changed_words(" One two.", " One two.") == []


def side(log_ratio: float, reward: float) -> Side:
    logp = torch.full((1, 2), log_ratio / 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True]])
    return Side(
        logp=logp,
        mask=mask,
        ref_logp=torch.zeros(1, 2, dtype=torch.float64),
        reward=torch.full((1, 2), reward / 2, dtype=torch.float64),
        weight=torch.full((1, 2), 0.3, dtype=torch.float64),
    )


def test_uses_of_whole_answers() -> None:
    pair = Pair(sides={"chosen": side(1.0, 2.0), "rejected": side(-1.0, 0.5)}, columns={})
    right = 1 / (1 + np.exp(-1.5))
    loss = SoftLabel(beta=0.5)(pair)
    torch.testing.assert_close(loss, torch.tensor([right * np.log1p(np.exp(-1.0)) + (1 - right) * np.log1p(np.exp(1.0))], dtype=torch.float64))
    torch.testing.assert_close(MarginRegression(beta=0.5)(pair), torch.tensor([(0.5 * 2.0 - 1.5) ** 2], dtype=torch.float64))
    MarginRegression(beta=0.5)(pair).sum().backward()
    gradient = pair.chosen.logp.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, torch.full((1, 2), 2 * (0.5 * 2.0 - 1.5) * 0.5, dtype=torch.float64))
    met = Pair(sides={"chosen": side(1.5, 0.5), "rejected": side(0.0, -0.25)}, columns={})
    SoftLabel(beta=0.5)(met).sum().backward()
    assert met.chosen.logp.grad is not None
    torch.testing.assert_close(met.chosen.logp.grad, torch.zeros(1, 2, dtype=torch.float64))  # the scorer's margin is the optimum


TINY = replace(
    run_of_the_bench.QUICK,
    held_out=12,
    base_answers=64,
    base_steps=8,
    budget=Budget(3, 8, 0.0),
    samples=8,
    readings=(1, 3),
    stages=BenchStages(
        rates=(1e-3,), betas=(0.5,), widenings=0, pairs=16, tuning_seeds=(9,), screening_seeds=(8,), kept=1, final_pairs=(16,), final_seeds=(0,)
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("uses", [("soft-label", "confidence"), ()], ids=["two uses", "all"])
def test_a_tiny_benchmark_runs_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uses: tuple[str, ...]
) -> None:
    monkeypatch.setattr(run_of_the_bench, "QUICK", TINY)
    out = tmp_path / "bench"
    line = ["bench", "credit", "--quick", "--workers", "1", "--out", str(out), "--types", "10", "--shortcut", "0.85", "--scorer.share", "1"]
    line += ["--uses", *uses] if uses else []
    assert main(line) == 0
    record = json.loads((out / "bench.json").read_text())
    page = (out / "bench.md").read_text()
    assert page.count("| row | reads |") == 2
    assert page.count("Scorer: a token model of the pairs and of marked sentences on 100% of the answers") == 2, "the regime heads every table"
    names = [row.name for row in rows_of(replace(SETTINGS, uses=uses))]
    (screening, final) = record["tables"].values()
    assert [one["row"] for one in screening] == names
    assert [one["row"] for one in final] == record["survivors"]
    assert all(cell["refused"] is None for cell in record["cells"])
    assert all(0 <= cell["accuracy"] <= 1 for cell in record["cells"])
    assert {cell["seed"] for cell in record["cells"]} == {9, 8, 0}
    scored = read_jsonl(out / "data/16-pairs/seed-0/scored.jsonl")
    assert len(scored) == 16
    assert any(span["std"] > 0 for span in scored[0]["chosen_spans"])
    everything = len(read_jsonl(out / "data/16-pairs/seed-0/everything.jsonl"))
    facts = json.loads((out / "data/16-pairs/seed-0/ready.json").read_text())
    assert everything == 16 + round(facts["spans"] * 15 / 30)
    done = {file: file.read_text() for file in (out / "cells").iterdir()}
    assert len(done) == len(record["cells"]) == 2 * len(names) + len(final)
    lost = sorted(done)[0]
    lost.unlink()
    made: list[Cell] = []
    run = CellRunner.run
    monkeypatch.setattr(CellRunner, "run", lambda self, cell: made.append(cell) or run(self, cell))
    assert main(line) == 0
    assert [f"{cell.name}.json" for cell in made] == [lost.name], "only the missing cell is made again"
    again, before = json.loads(lost.read_text()), json.loads(done[lost])
    assert again | {"seconds": 0} == before | {"seconds": 0}, "a cell made again has the same result"
    assert json.loads((out / "bench.json").read_text())["tables"] == record["tables"]
    capsys.readouterr()
    assert main([*line, "--noise", "2"]) == CheckpointError.exit_code
    assert "another noise" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tiny_benchmark_of_objectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_of_the_bench, "QUICK", TINY)
    out = tmp_path / "bench"
    line = ["bench", "credit", "--quick", "--workers", "1", "--out", str(out), "--types", "10", "scorer:corrections", "--scorer.share", "1"]
    assert main([*line, "--objectives", "mapo", "pngd", "figa", "alol"]) == 0
    (_, final) = json.loads((out / "bench.json").read_text())["tables"].values()
    assert [one["row"] for one in final] == ["dpo", "dpo, all labels as pairs", "mapo", "pngd", "dpo on corrections", "figa", "alol"]
    assert all(one["quality_within_4"] is not None for one in final)
    assert final[-2]["pairs_seen"] == len(read_jsonl(out / "data/16-pairs/seed-0/corrected.jsonl")) > 0


def test_a_loss_that_runs_away_is_a_result_and_data_without_corrections_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs_away(*given: Any) -> Json:
        raise NonFiniteError("the loss of step 3 is NaN")

    monkeypatch.setattr(cell_of_the_bench, "align", runs_away)
    start = SimpleNamespace(step=0, kl=0.0, quality=0.0)
    monkeypatch.setattr(cell_of_the_bench, "probes_of", lambda task: (None, None, start))
    monkeypatch.setattr(cell_of_the_bench, "PathReader", lambda *given: SimpleNamespace(points=[start], credit=None))
    runner = CellRunner(
        replace(SETTINGS, out=tmp_path, scorer=Corrections(), objectives=("figa",)), WORLD.settings, Budget(3, 8, 0.0), tmp_path, 8, (1,)
    )
    folder = runner.data(16, 0).folder
    folder.mkdir(parents=True)
    (folder / "pairs.jsonl").write_text("{}\n")
    (folder / "corrected.jsonl").write_text("")
    found = runner.run(Cell("dpo", 16, 0, Trial(1e-3, 0.5)))
    assert (found["refused"], found["quality"]) == ("the loss of step 3 is NaN", {"1": None, "4": None})
    with pytest.raises(DataError, match=r"figa: nobody gave a correction to 16 pairs of seed 0; raise --scorer.share"):
        runner.run(Cell("figa", 16, 0, Trial(1e-3, 0.5)))


def test_an_interrupted_stage_keeps_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, out=tmp_path, workers=1)
    runner = CellRunner(settings, WORLD.settings, Budget(3, 8, 0.0), tmp_path / "base", 8, (1,))
    cells = [Cell("dpo", 16, seed, Trial(1e-3, 0.5)) for seed in range(3)]

    def run(self: CellRunner, cell: Cell) -> Json:
        if cell.seed == 2:
            raise KeyboardInterrupt
        self.cells.mkdir(exist_ok=True)
        (self.cells / f"{cell.name}.json").write_text(json.dumps(result(float(cell.seed))))
        return result(float(cell.seed))

    monkeypatch.setattr(CellRunner, "prepare", lambda self, pairs, seed: {})
    monkeypatch.setattr(CellRunner, "run", run)
    with pytest.raises(KeyboardInterrupt):
        CellsMade(runner, 1)(cells)
    made: list[int] = []
    monkeypatch.setattr(CellRunner, "run", lambda self, cell: made.append(cell.seed) or result(float(cell.seed)))
    again = CellsMade(runner, 1)([cells[2], cells[0], cells[0], cells[1]])
    assert made == [2]
    assert [one["quality"]["1"] for one in again] == [2.0, 0.0, 0.0, 1.0]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds files that no benchmark wrote"):
        run_bench_credit(replace(SETTINGS, out=tmp_path))


def test_the_group_without_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    assert "finegrain bench credit" in capsys.readouterr().out
    assert main(["bench", "credits"]) == 2
    assert "bench credit" in capsys.readouterr().err
    assert main(["bench", "credit", "--out", "x", "--shortcut", "1.5"]) == 2
    assert "shortcut must be a finite number in [0, 1]" in capsys.readouterr().err

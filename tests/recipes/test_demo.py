import json
import math

import pytest

from finegrain.cli import main
from finegrain.recipes.demo import rows as rows_of_the_demo
from finegrain.recipes.demo import run as run_of_the_demo
from finegrain.recipes.demo import seed as seed_of_the_demo
from finegrain.recipes.demo import summary as summary_of_the_demo
from finegrain.recipes.demo.baselines import baseline_aurocs
from finegrain.recipes.demo.path import Point, best_within
from finegrain.recipes.demo.rows import BASELINE, LARGER_BASELINE, ROWS
from finegrain.recipes.demo.seed import REPORTED
from finegrain.recipes.demo.summary import cells, summarise, verdict


def seeds(**qualities):
    """Four seeds in which every row but the named ones equals the baseline, up to a known noise."""
    noise = (0.0, 0.1, -0.1, 0.05)
    filled = {"quality_within_4": 1.0, "chosen_within_1": -1.0, "credit_auroc": None}
    found = []
    for seed in range(4):
        quality = {row.name: 0.5 + qualities.get(row.name, 0.0) + noise[seed] * (row is not BASELINE) for row in ROWS}
        found.append({"seed": seed, "rows": {name: {"quality_within_1": value, **filled} for name, value in quality.items()}})
    return found


def point(step, kl, quality):
    return Point(step=step, kl=kl, quality=quality, unreadable=0.0, chosen=-kl, rejected=-2 * kl)


def test_the_best_policy_within_a_distance():
    path = [point(0, 0.0, 0.1), point(5, 0.25, 0.6), point(9, 2.25, 1.6), point(12, 0.9, 0.4), point(15, 9.0, 0.2)]
    assert [best_within(path, kl).step for kl in (0.25, 9.0)] == [5, 9]
    assert best_within(path[:2], 1.0) == path[1]
    leaving = best_within(path, 1.0)
    assert (leaving.step, leaving.kl) == (5, 1.0)
    assert (leaving.quality, leaving.chosen) == (pytest.approx(0.6 + 1.0 * (1 - 0.5) / (1.5 - 0.5)), pytest.approx(-1.25))
    assert best_within([point(0, 0.0, 0.5), point(3, 4.0, -1.0)], 1.0).step == 0


def test_the_sentence_follows_from_the_intervals():
    own, pool = ROWS[3].name, ROWS[4].name
    said = verdict(summarise(seeds(**{own: -0.6, pool: 0.6})))
    helped, hurt = said.index(f"helped: `{pool}`"), said.index(f"hurt: `{own}`")
    assert helped < hurt < said.index(f"no difference that these seeds can show: `{ROWS[1].name}`")
    assert "oracle" not in said
    swapped = verdict(summarise(seeds(**{own: 0.6, pool: -0.6})))
    assert f"helped: `{own}`" in swapped
    assert f"hurt: `{pool}`" in swapped


def test_a_row_that_one_seed_was_refused_in_has_no_mean():
    found = seeds()
    found[2]["rows"][LARGER_BASELINE.name]["quality_within_1"] = None
    summary = summarise(found)
    assert summary[LARGER_BASELINE.name]["quality_within_1"] is None
    assert f"could not be compared: `{LARGER_BASELINE.name}`" in verdict(summary)
    assert ["refused"] * 2 == cells(summary)[1 + ROWS.index(LARGER_BASELINE)][2:4]


def test_the_paired_difference_does_not_contain_what_seeds_share():
    found = seeds(**{LARGER_BASELINE.name: 0.3})
    for shift, seed in enumerate(found):
        for row in seed["rows"].values():
            row["quality_within_1"] += 10 * shift
    interval = summarise(found)[LARGER_BASELINE.name]["paired"][f"quality_within_1 - {BASELINE.name}"]
    assert interval["mean"] == pytest.approx(0.3125)
    assert interval["high"] - interval["low"] < 0.5


SOME = tuple(row for row in ROWS if row.name in REPORTED or row is LARGER_BASELINE or row.name == "oracle: dpo + asr")
"""What the page shows, what the table compares with, and one that knows the truth."""


@pytest.mark.parametrize("some", [pytest.param(SOME, id="five rows"), pytest.param(ROWS, id="all rows", marks=pytest.mark.slow)])
def test_a_quick_demo_runs_from_data_to_report(tmp_path, capsys, monkeypatch, some):
    for module in (rows_of_the_demo, run_of_the_demo, seed_of_the_demo, summary_of_the_demo):
        monkeypatch.setattr(module, "ROWS", some)
    monkeypatch.setenv("FINEGRAIN_CACHE", str(tmp_path / "untouched"))
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--seeds", "1", "--workers", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert last["status"] == "finished"
    assert printed.err.rstrip().endswith(f"report: {out / 'demo.html'}")
    assert "wall time:" in printed.err
    assert not (tmp_path / "untouched").exists()
    record = json.loads((out / "demo.json").read_text())
    (seed,) = record["seeds"]
    assert list(seed["rows"]) == [row.name for row in some]
    for row in seed["rows"].values():
        assert row["refused"] is None
        assert [p["step"] for p in row["path"]] == [0, 1, 3]
        assert all(math.isfinite(value) for p in row["path"] for value in p.values())
        assert row["path"][-1]["kl"] > 0
    for row in some:
        assert (seed["rows"][row.name]["credit_auroc"] == 1.0) == row.oracle
    assert set(record["baseline_aurocs"]) == {"word list from the pairs", "word list from pairs and pool", "place in the answer"}
    page = (out / "demo.html").read_text()
    assert "<script src" not in page
    report = (out / "demo.md").read_text()
    assert all(f"| {row.name} |" in report for row in some)
    assert record["verdict"] in report
    assert main(["demo", "--quick", "--out", str(out)]) == 7


def test_a_word_list_finds_words_and_a_place_does_not():
    rows = [
        {
            "chosen": f"Use salt {place}. Use sand.",
            "rejected": "Use acid. Use sand.",
            "chosen_truth": [[0, 11, 1.0], [12, 21, 0.0]],
            "rejected_truth": [[0, 9, -1.0], [10, 19, 0.0]],
        }
        for place in range(9)
    ]
    found = baseline_aurocs(rows, rows)
    assert found == {"word list from the pairs": 1.0, "word list from pairs and pool": 1.0, "place in the answer": 0.5}


def test_a_word_list_is_not_asked_about_the_pairs_it_was_made_from():
    """Words that stand in one pair alone say nothing of another: in-sample they would tell every sentence."""
    rows = [
        {
            "chosen": f"Take good{place}.",
            "rejected": f"Take bad{place}.",
            "chosen_truth": [[0, 10 + len(str(place)), 1.0]],
            "rejected_truth": [[0, 9 + len(str(place)), -1.0]],
        }
        for place in range(8)
    ]
    found = baseline_aurocs(rows, rows[:1])
    assert found["word list from the pairs"] == 0.5
    assert baseline_aurocs(rows, rows)["word list from pairs and pool"] == 1.0, "the pool is another matter: its labels are not the pairs'"


def test_impossible_demos_are_refused(capsys):
    assert main(["demo", "--seeds", "0"]) == 2
    assert "seeds must be a whole number of at least 1, got 0" in capsys.readouterr().err
    assert main(["demo", "--workers", "-1"]) == 2
    assert "workers must be a whole number of at least 0, got -1" in capsys.readouterr().err

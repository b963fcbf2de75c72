"""The page: what stands on it, what is escaped, how large it is, what it says of what is missing."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finegrain.errors import CheckpointError
from finegrain.report.pack import DIGITS, MISSING, escape_json, pack_answer, quantise, split_tokens, token_runs
from finegrain.report.page import render, write_report
from finegrain.report.pairs import ExaminedAnswer, pair_from_json, read_pairs
from finegrain.report.read import read_run
from finegrain.terminal import make_visible
from finegrain.types import CharSpan
from tests.report.runs import pairs, write_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202eevil\u202c\u2028{{ 7*7 }}<!--<script>" + "\x00\u200b"


class Elements(HTMLParser):
    """Tags with their attributes, and the text of the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def data_of(page: str) -> dict[str, Any]:
    """The pairs inside the page, as the script reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def decoded(packed: Any, count: int) -> np.ndarray:
    """What templates/page.js reads back."""
    if isinstance(packed, (int, float)):
        return np.full(count, float(packed))
    codes = np.array([DIGITS.index(packed["v"][2 * i]) * 64 + DIGITS.index(packed["v"][2 * i + 1]) for i in range(count)])
    return np.where(codes == MISSING, np.nan, packed["l"] + codes * packed["s"])


def test_what_stands_on_the_page(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", pairs(weight=0.5))).read_text()
    text = html.unescape(page)
    assert "finegrain prefer trained tiny on 30 pairs of pairs.jsonl with objective dpo and credit asr, 12 steps" in text
    for words in ("Log-probability of answers, nats", "Learning rate", "duplicates", "eval_margin", "0.1 to 0.3, 10 rows", "objective.beta"):
        assert words in text
    names = [tag for tag, _ in Elements(page).found]
    assert {"header", "main", "nav", "footer"} <= set(names)
    assert names.count("h1") == 1
    assert len(data_of(page)["runs"][0]["pairs"]) == 40


def test_every_number_of_a_finding_has_an_interval_or_a_reason(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", pairs(count=1, weight=0.5))).read_text()
    cells = re.findall(r'<td>([^<]*)</td><td class="interval">([^<]*)</td>', page)
    assert len(cells) > 4
    assert [cell for cell in cells if not re.search(r"\d( %)? to |no interval|recorded", cell[1])] == []


def test_nothing_is_fetched_and_nothing_foreign_may_run(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", pairs())).read_text()
    found = Elements(page)
    assert found.of("link") == found.of("img") == found.of("iframe") == []
    assert not any("src" in attributes or "style" in attributes or any(name.startswith("on") for name in attributes) for _, attributes in found.found)
    assert all(str(attributes.get("href", "#")).startswith("#") for attributes in found.of("a"))
    assert not re.search(r"https?://", page)
    policy = next(str(meta["content"]) for meta in found.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_hostile_text_is_text(tmp_path: Path) -> None:
    """In prompt, answers, samples, settings, versions, findings, the run's name and the names of roles."""
    bad = HOSTILE.replace("/", "\u2215")
    hostile = [
        replace(pair, prompt=HOSTILE, answers={role: replace(side, text=HOSTILE + side.text) for role, side in pair.answers.items()})
        for pair in pairs(3)
    ]
    hostile += [replace(hostile[0], answers={HOSTILE: hostile[0].answers["chosen"]})]
    record = {
        "settings": {"model": HOSTILE, "data": HOSTILE, "objective": {"method": HOSTILE}, HOSTILE: HOSTILE},
        "versions": {HOSTILE: HOSTILE},
        "machine": {"device": HOSTILE},
        "date": HOSTILE,
        "status": HOSTILE,
        "evaluation": {HOSTILE: HOSTILE},
        "data": {"source": HOSTILE, "findings": [{"kind": HOSTILE, "count": HOSTILE, "rows": [HOSTILE], "action": HOSTILE}], "biases": {HOSTILE: []}},
    }
    clean = Elements(render([read_run(write_run(tmp_path / "clean", pairs(3)))]))
    page = render([read_run(write_run(tmp_path / bad.replace("\x00", ""), hostile, record=record, prompt=HOSTILE))])
    found = Elements(page)
    assert len(found.of("script")) == len(clean.of("script")) == 2
    assert found.of("img") == []
    assert "alert(1)" in page
    assert not re.search("[\u202a-\u202e\u2028\u200b\x00]", page)
    assert "⟦U+202E⟧evil" in page
    assert "{{ 7*7 }}" in page
    assert data_of(page)["runs"][0]["pairs"][0]["p"].startswith("</script><script>alert(1)")


def test_strange_records_still_give_a_page(tmp_path: Path) -> None:
    """Lists where mappings are expected, numbers where words are, NaN, nothing at all."""
    odd = {"eval_loss": float("nan"), "x": [1, 2]}
    strange: dict[str, Any] = {"settings": [], "versions": 3, "machine": None, "evaluation": odd, "data": "none", "credit": [], "status": None}
    page = render([read_run(write_run(tmp_path / "run", pairs(2), record=strange))])
    assert "unknown" in page
    assert "nan" not in page[: page.index('id="data"')].lower()


def test_an_older_run_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", None, record={"status": "interrupted", "reason": "stopped after step 3"})
    (folder / "samples.jsonl").unlink()
    (folder / "metrics.jsonl").unlink()
    page = html.unescape(write_report(folder).read_text())
    assert "stopped after step 3" in page
    for words in ("No curves", "pairs.jsonl is absent", "No sampled answers from before and after", "No pairs were examined"):
        assert words in page


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs(2))
    (folder / "pairs.jsonl").write_text('{"row": 1}\n')
    with pytest.raises(CheckpointError, match=r"pairs.jsonl:1 is not an examined pair"):
        read_run(folder)
    with pytest.raises(CheckpointError, match=r"holds no run; expected a folder with the run.json"):
        read_run(tmp_path)
    (folder / "run.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="no object"):
        read_run(folder)


@pytest.mark.slow
def test_two_hundred_pairs_stay_under_two_megabytes(tmp_path: Path) -> None:
    """Answers of about 250 tokens with every signal; then answers ten times as long, of which some are left out, and that is said."""
    rng = np.random.default_rng(0)

    def full(count: int, tokens: int) -> list[Any]:
        made = pairs(count, tokens=tokens)
        more = lambda side: replace(side, weight=rng.random(len(side.mask)), reward=rng.normal(size=len(side.mask)))
        return [replace(pair, answers={role: more(side) for role, side in pair.answers.items()}) for pair in made]

    page = render([read_run(write_run(tmp_path / "run", full(200, 400)))])
    tokens = sum(len(side["w"]) for pair in data_of(page)["runs"][0]["pairs"] for side in pair["a"])
    print(f"{tokens / 400:.0f} tokens per answer, {len(page.encode()) / 1e6:.2f} MB")
    assert tokens / 400 > 240
    assert len(data_of(page)["runs"][0]["pairs"]) == 200
    assert len(page.encode()) < 2_000_000
    large = render([read_run(write_run(tmp_path / "large", full(100, 4000)))])
    assert len(large.encode()) < 2_000_000
    kept = len(data_of(large)["runs"][0]["pairs"])
    assert 0 < kept < 100
    assert f"{100 - kept} further examined pairs are left out" in large


def test_runs_side_by_side(tmp_path: Path) -> None:
    """Columns per run, settings that differ first, and differences paired by row."""
    one = write_run(tmp_path / "one", pairs())
    two = write_run(tmp_path / "two", pairs(chosen=3.0), record={"settings": {"model": "tiny", "data": "d", "objective": {"method": "ipo"}}})
    page = html.unescape(render([read_run(one), read_run(two)]))
    assert "Side by side" in page
    assert "objective.method (differs)" in page
    line = page[page.index(">Differences, paired by row<") :]
    row = re.search(r'<b>(\+[^<]*)</b><span class="interval">([^<]*)', line)
    assert row is not None
    assert float(row[1].split()[0].replace("−", "-")) == pytest.approx(2.0, abs=0.05)
    assert row[2].endswith("40 shared pairs")
    assert [run["name"] for run in data_of(page)["runs"]] == ["one", "two"]


def test_examined_pairs_survive_their_file(tmp_path: Path) -> None:
    made = pairs(3, weight=0.5)
    back = read_pairs(write_run(tmp_path / "run", made))
    assert back is not None
    for old, new in zip(made, back, strict=True):
        assert new.as_json() == old.as_json() == pair_from_json(json.loads(json.dumps(old.as_json()))).as_json()
        assert new.margin == pytest.approx(old.margin, abs=0.01)


def test_quantised_values_come_back_within_half_a_step() -> None:
    values = np.array([-3.0, 0.5, np.nan, 9.0, 0.0])
    packed = quantise(values)
    assert isinstance(packed, dict)
    assert np.nanmax(np.abs(decoded(packed, 5) - values)) <= 12 / 4094 / 2 * 1.001
    assert np.isnan(decoded(packed, 5)[2])
    assert quantise(np.ones(4)) == 1.0
    assert np.isnan(decoded(quantise(np.full(3, np.nan)), 3)).all()


def test_pieces_are_the_text() -> None:
    """Gaps, shared characters and characters beyond the basic plane; what no token covers comes last."""
    offsets = np.array([[0, 2], [3, 5], [5, 6], [5, 6], [8, 8]])
    side = ExaminedAnswer(text="ab cd😀xy", offsets=offsets, mask=np.ones(5, dtype=bool))
    assert split_tokens(side) == ["ab", " cd", "😀", "", "", "xy"]
    assert pack_answer("chosen", side)["w"] == "CDCAA"
    assert pack_answer("chosen", side)["x"] == "xy"
    huge = ExaminedAnswer(text="x" * 5000, offsets=np.array([[0, 5000]]), mask=np.ones(1, dtype=bool))
    assert split_tokens(huge)[0].endswith("… [+4800 characters]")


def test_spans_become_runs_of_tokens() -> None:
    offsets = np.array([[0, 2], [2, 4], [4, 6]])
    assert token_runs([CharSpan(0, 4, -1.0), CharSpan(4, 6, 1.0)], offsets) == [(0, 1, -1.0), (2, 2, 1.0)]
    assert token_runs([], offsets) == []


def test_hidden_characters_are_shown() -> None:
    assert make_visible("a\u202eb\ud800c\x07") == "a⟦U+202E⟧b⟦U+D800⟧c⟦U+0007⟧"
    assert make_visible("tab\tline\nעברית فارسی‌ها 👩‍🚀") == "tab\tline\nעברית فارسی‌ها 👩‍🚀"
    assert json.loads(escape_json(["</script>&\u2028"])) == ["</script>&\u2028"]
    assert not set("<>&\u2028") & set(escape_json(["</script>&\u2028"]))

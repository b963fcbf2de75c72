"""The page in a real browser: headless Chromium, driven by what it prints of the page after its script has run. Test of report/page.py."""

import base64
import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from finegrain.report.page import render
from finegrain.report.pairs import ExaminedPair
from finegrain.report.read import read_run
from finegrain.report.template import TEMPLATES
from tests.report.browser import CHROMIUM, READABLE
from tests.report.online import HACKED, metrics, rollouts, write_online
from tests.report.rewards import scored
from tests.report.runs import pairs, write_run
from tests.report.test_page import HOSTILE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")]


def dom(page: str, folder: Path, probe: str = "", *flags: str) -> tuple[str, str]:
    """(the document after scripts ran, the console): `probe` is run at the end of the page's own script, allowed by its own hash."""
    assert CHROMIUM is not None
    script = (TEMPLATES / "page.js").read_text()
    digest = lambda text: "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    probed = script + f"\n{{ const note = (value) => {{ document.body.dataset.probe = JSON.stringify(value); }};\n{probe}\n}}\n"
    assert page.count(script) == page.count(digest(script)) == 1
    file = folder / "page.html"
    file.write_text(page.replace(script, probed).replace(digest(script), digest(probed)))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000",
            f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900", *flags, "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def probed(document: str) -> object:
    found = re.search(r'data-probe="([^"]*)"', document)
    assert found is not None, "the probe did not run"
    return json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&"))


@pytest.fixture
def page(tmp_path: Path) -> str:
    return render([read_run(write_run(tmp_path / "run", pairs(weight=0.5)))])


def test_pairs_are_drawn_sorted_and_recoloured(page: str, tmp_path: Path) -> None:
    """Ten of forty pairs, the largest fall first; another signal and another order redraw."""
    document, console = dom(
        page,
        tmp_path,
        """
        const rows = () => [...document.querySelectorAll("#list article h3")].map((node) => node.firstChild.textContent);
        const first = rows();
        const colours = document.querySelectorAll("#list .p1, #list .p2, #list .p3, #list .n1, #list .n2, #list .n3").length;
        const choose = (id, value) => { const box = document.getElementById(id); box.value = value; box.dispatchEvent(new Event("change")); };
        choose("sort", "row");
        const second = rows();
        choose("part", "1");
        const held = rows().length;
        choose("part", "all");
        document.getElementById("more").click();
        choose("signal", "weight");
        const under = document.querySelector("#list .tok").dataset.n;
        note([first.length, colours > 20, second.slice(0, 2), held, rows().length, under]);
        """,
    )
    assert console == ""
    assert probed(document) == [10, True, ["Row 0", "Row 1"], 10, 20, "0.50"]


def test_keyboard_shows_the_numbers_of_a_token(page: str, tmp_path: Path) -> None:
    document, console = dom(
        page,
        tmp_path,
        """
        const box = document.querySelector(".tokens");
        box.focus();
        const press = (key) => box.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        press("Home"); press("ArrowRight"); press("ArrowRight");
        const tip = document.getElementById("tip");
        const words = [...tip.querySelectorAll("dt")].map((node) => node.textContent);
        const place = tip.querySelector("b").textContent.split(":")[0];
        press("Escape");
        note([words, place, box.tabIndex, tip.getAttribute("aria-live"), tip.hidden]);
        """,
    )
    words, place, tab, live, hidden = probed(document)  # type: ignore[misc]
    assert console == ""
    assert {"log-ratio (after − reference)", "credit weight", "log-probability after"} <= set(words)
    assert (place, tab, live, hidden) == ("3", 0, "polite", True)


def test_a_reward_model_is_hatched_where_unsure_and_sorted_by_its_mistakes(tmp_path: Path) -> None:
    """The most confident mistake comes first; a quarter of the tokens is hatched, their deviation is on the keyboard; links go to the pair."""
    examined = scored()
    document, console = dom(
        render([read_run(write_run(tmp_path / "run", examined))]),
        tmp_path,
        """
        const first = document.querySelector("#list article h3").textContent;
        const choose = (id, value) => { const box = document.getElementById(id); box.value = value; box.dispatchEvent(new Event("change")); };
        const before = document.querySelectorAll("#list .u1, #list .u2, #list .u3").length;
        choose("signal", "reward");
        const share = document.querySelectorAll("#list .u1, #list .u2, #list .u3").length / document.querySelectorAll("#list .tok").length;
        const cuts = document.querySelectorAll("#list .cut").length;
        const box = document.querySelector(".tokens");
        box.focus();
        box.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true, cancelable: true }));
        const words = [...document.querySelectorAll("#tip dt")].map((node) => node.textContent);
        const link = document.querySelectorAll("#reward .go")[1];
        link.click();
        const gone = document.querySelector("#list article h3").firstChild.textContent.toLowerCase() === link.textContent;
        note([first, before, share > 0.15 && share < 0.35, cuts > 10, words, gone]);
        """,
    )
    worst = min(examined, key=lambda pair: pair.reward_margin)
    first, before, hatched, cut, words, gone = probed(document)  # type: ignore[misc]
    assert console == ""
    assert first.startswith(f"Row {worst.row}")
    assert "wrong: the label has" in first
    assert (before, hatched, cut, gone) == (0, True, True, True), "the first signal is the segments', which have no deviation"
    assert {"segment score", "token reward", "standard deviation of the token reward"} <= set(words)


def test_hostile_text_does_nothing(tmp_path: Path) -> None:
    """No dialogue, no element, no request comes out of model text, in any place the script or the template writes."""
    hostile = [
        replace(pair, prompt=HOSTILE, answers={role: replace(side, text=HOSTILE + side.text) for role, side in pair.answers.items()})
        for pair in pairs(3)
    ]
    page = render([read_run(write_run(tmp_path / "run", hostile, record={"settings": {"model": HOSTILE, HOSTILE: HOSTILE}}, prompt=HOSTILE))])
    document, console = dom(
        page,
        tmp_path,
        """
        window.alert = () => { document.body.dataset.hacked = "yes"; };
        const text = document.querySelector("#list .prompt").textContent;
        const hidden = /[\\u202a-\\u202e]/.test(document.body.innerText);
        note([document.images.length, document.scripts.length, text.startsWith("<\\/script><script>alert(1)"), hidden]);
        """,
    )
    assert console == ""
    assert "data-hacked" not in document
    assert probed(document) == [0, 2, True, False]


def test_the_policy_stops_a_script_that_got_in(page: str, tmp_path: Path) -> None:
    """The content security policy is a second wall: an element planted into the finished page does not run."""
    planted = '<script>document.title = "hacked"</script><img src="https://example.org/x.png">'
    document, console = dom(page.replace("<footer>", f"{planted}<footer>"), tmp_path, "note(1);")
    assert "<title>hacked" not in document
    assert console.count("Content Security Policy") >= 2


@pytest.mark.parametrize("examined", [pairs(weight=0.5), scored()], ids=["policy", "reward"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_runs_over_the_edge_and_texts_can_be_read(examined: list[ExaminedPair], tmp_path: Path, width: int) -> None:
    """No sideways scrolling of the page; contrast of every kind of text at least 4.5, in light and in dark."""
    page = render([read_run(write_run(tmp_path / "run", examined))])
    probe = f"note({READABLE});"
    for dark in (False, True):
        flags = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
        document, console = dom(page, tmp_path, probe, f"--window-size={width},900", *flags)
        ratio, where, over, wide, is_dark = probed(document)  # type: ignore[misc]
        assert console == ""
        assert is_dark is dark
        assert ratio >= 4.5, (where, ratio, dark)
        assert over <= 0, wide


def test_answers_over_time_are_recoloured_and_say_how_they_ended(tmp_path: Path) -> None:
    """Three buffers in a card, coloured by reward, advantage or KL; the prompt is open; hostile answers are text."""
    hostile = [{**line, "prompt": HOSTILE if line["row"] == 4 else line["prompt"], "ended": HOSTILE} for line in rollouts(48)]
    given = [line if line["row"] else {**line, "text": line["text"] + HOSTILE} for line in hostile]
    document, console = dom(
        render([read_run(write_online(tmp_path / "run", metrics(48, HACKED), given))]),
        tmp_path,
        """
        const boxes = document.querySelectorAll("#list article:first-child .tokens").length;
        const signals = [...document.getElementById("signal").options].map((option) => option.textContent);
        const sorts = [...document.getElementById("sort").options].map((option) => option.value);
        const under = () => document.querySelector("#list .tok").dataset.n;
        const seen = [under()];
        for (const name of ["advantage", "kl"]) {
          const box = document.getElementById("signal");
          box.value = name;
          box.dispatchEvent(new Event("change"));
          seen.push(under());
        }
        const box = document.querySelector(".tokens");
        box.focus();
        box.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true, cancelable: true }));
        const words = [...document.querySelectorAll("#tip dt")].map((node) => node.textContent);
        const open = document.querySelector("#list details").open;
        const hidden = /[\\u202a-\\u202e]/.test(document.body.innerText);
        note([boxes, signals, sorts, new Set(seen).size, words, open, document.images.length, document.scripts.length, hidden]);
        """,
    )
    boxes, signals, sorts, different, words, opened, images, scripts, hidden = probed(document)  # type: ignore[misc]
    assert console == ""
    assert boxes == 3
    assert signals == ["token reward", "advantage", "KL to the reference"]
    assert sorts == ["gold-fell", "gold-rose", "reward-rose", "reward-fell", "spread", "late", "early", "row"]
    assert different == 3
    assert words == ["token reward", "advantage", "KL to the reference"]
    assert (opened, images, scripts, hidden) == (True, 0, 2, False)


@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_of_online_rl_can_be_read(tmp_path: Path, width: int) -> None:
    """As above: nothing over the edge, contrast of at least 4.5, for two runs side by side."""
    runs = [read_run(write_online(tmp_path / name, metrics(48, changed), rollouts(48))) for name, changed in (("one", HACKED), ("two", {}))]
    for page in (render(runs[:1]), render(runs)):
        for dark in (False, True):
            flags = [f"--window-size={width},900", f"--blink-settings=preferredColorScheme={int(not dark)}"]
            document, console = dom(page, tmp_path, f"note({READABLE});", *flags)
            ratio, where, over, wide, is_dark = probed(document)  # type: ignore[misc]
            assert console == ""
            assert is_dark is dark
            assert ratio >= 4.5, (where, ratio, dark)
            assert over <= 0, wide


def test_runs_stand_side_by_side_in_a_card(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, pairs())) for name in ("one", "two")]
    document, console = dom(render(runs), tmp_path, 'note([document.querySelectorAll("#list article:first-child .tokens").length]);')
    assert console == ""
    assert probed(document) == [4]


def test_it_prints(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page)
    assert CHROMIUM is not None
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000",
         f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri()], capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000

"""The page of `finegrain mark` in Chromium: a real pointer and real keys select, and the exported file is read as data.

Test of recipes/marking/page.py.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finegrain.data.load import load_text
from finegrain.recipes.marking.page import SCRIPT
from finegrain.report.template import TEMPLATES
from tests.recipes.command import Command
from tests.report.browser import CHROMIUM, READABLE, Browser, open_browser
from tests.report.test_page import HOSTILE
from tests.tiny import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")]

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
CHOSEN = f"Plain words, then {FAMILY} family \U0001f600 smiles, cafe\u0301 tables\r\nand a second line of words."
REJECTED = "The word \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd means peace. \U0001d4d0 letters follow here."
PAIR = {"prompt": "Say something. ", "chosen": CHOSEN, "rejected": REJECTED}
PAIRS = [PAIR, {"prompt": "And again? ", "chosen": "It is a good house.", "rejected": "Nobody ever knew that at all."}]

ANSWERS = "JSON.parse(document.getElementById('data').textContent).tasks[Number(document.getElementById('number').value) - 1].answers"
"""Those of the task that is shown, as an expression."""

Rows = list[dict[str, Any]]
Page = Callable[..., Browser]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, command: Command, tmp_path: Path) -> Iterator[Page]:
    """Makes the page of these rows and opens it in a browser that has kept nothing."""

    def make(rows: Rows, *arguments: str | Path) -> Browser:
        data, out = write_rows(tmp_path / "answers.jsonl", rows), tmp_path / "mark.html"
        out.unlink(missing_ok=True)
        done = command("mark", "--data", data, "--out", out, *arguments)
        assert done.code == 0, done.error
        chromium.open(out)
        chromium.run("localStorage.clear()")
        chromium.events.clear()
        chromium.size(1280)
        chromium.open(out)
        return chromium

    yield make
    assert chromium.trouble() == []


def text_of(row: dict[str, Any]) -> dict[str, str]:
    """The texts by role."""
    return {role: row[role] for role in ("chosen", "rejected", "completion") if role in row}


def box(browser: Browser, text: str) -> str:
    """The answer with this text, as an expression."""
    place = browser.run(f"{ANSWERS}.findIndex((one) => one.text.includes({json.dumps(text)}))")
    assert place >= 0, text
    return f"document.querySelectorAll('.answer-text')[{place}]"


def ends(browser: Browser, answer: str, text: str) -> list[tuple[float, float]]:
    """Where in the window a passage begins and ends."""
    found: list[tuple[float, float]] = browser.run(
        f"""(() => {{
          const box = {answer}, words = {json.dumps(text)};
          box.scrollIntoView({{ block: "center" }});
          const whole = {ANSWERS}[box.place].text;
          const at = whole.indexOf(words);
          const edge = (from, to, last) => {{
            const range = document.createRange();
            range.setStart(...Texts.nodeAt(box, from));
            range.setEnd(...Texts.nodeAt(box, to));
            const boxes = [...range.getClientRects()].filter((one) => one.width > 0);
            const rect = last ? boxes[boxes.length - 1] : boxes[0];
            return [rect, rect.top + rect.height / 2];
          }};
          const rtl = (sign) => /[\\u0590-\\u07ff]/.test(sign);
          const [first, y1] = edge(at, at + words.length, false), [last, y2] = edge(at, at + words.length, true);
          return [[rtl(words[0]) ? first.right - 1 : first.left + 1, y1], [rtl(words[words.length - 1]) ? last.left + 1 : last.right - 1, y2]];
        }})()"""
    )
    return [tuple(one) for one in found]  # type: ignore[misc]


def select(browser: Browser, text: str) -> None:
    """Drags the pointer over a passage."""
    browser.drag(*ends(browser, box(browser, text), text))


def export(browser: Browser, name: str = "mark.jsonl") -> Rows:
    browser.press("e")
    return [json.loads(line) for line in browser.downloaded(name).split("\n") if line]


def marked(rows: Rows) -> list[tuple[str, float]]:
    """Marked passages with their values: spans count the code points of the row's own text."""
    found = []
    for row in rows:
        for role, text in text_of(row).items():
            for span in row["spans" if role == "completion" else f"{role}_spans"] or []:
                found.append((text[span["start"] : span["end"]], span["value"]))
    return found


PASSAGES = [
    "then",
    FAMILY,
    "family \U0001f600 smiles",
    "cafe\u0301",
    "tables\r\nand a second",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\U0001d4d0 letters",
]


@pytest.mark.parametrize("text", PASSAGES)
def test_a_passage_selected_with_the_pointer_is_exported_in_code_points(page: Page, text: str) -> None:
    """Astral characters, joined emoji, accents, right-to-left words and line ends do not move a span."""
    browser = page([PAIR])
    select(browser, text)
    browser.press("b")
    assert marked(export(browser)) == [(text, -1)]


def test_the_export_is_data(page: Page, command: Command, tmp_path: Path) -> None:
    browser = page([PAIR], "--annotator", "ann", "--aspects", "fact", "style")
    for text in PASSAGES:
        select(browser, text)
        browser.press("2")
    browser.press("Enter")
    rows = export(browser, "mark-ann.jsonl")
    assert [set(span) for span in rows[0]["chosen_spans"]] == [{"start", "end", "value", "aspect", "annotator"}] * 5
    assert {(span["aspect"], span["annotator"]) for side in ("chosen", "rejected") for span in rows[0][f"{side}_spans"]} == {("style", "ann")}
    file = write_rows(tmp_path / "export.jsonl", rows)
    done = command("check-data", "--data", file, "--model", command.model)
    assert (done.code, done.result["format"], done.result["examples_left"]) == (0, "preference pairs", 1)
    assert {finding["kind"] for finding in done.result["findings"]} <= {"unread", "bos_eos", "decode_differs", "language", "agreement"}
    ((_, row),) = load_text(str(file)).rows
    assert row.answers["chosen"].content == CHOSEN
    read = [CHOSEN[start:end] for start, end, *_ in row.answers["chosen"].spans or []]
    assert sorted(read) == sorted(text for text in PASSAGES if text in CHOSEN)


def test_half_an_emoji_is_the_whole_one_and_words_may_be_cut_where_asked(page: Page) -> None:
    browser = page([PAIR])
    browser.press("?")
    browser.click("document.getElementById('words')")
    browser.press("Escape")
    text = "lain wor"
    select(browser, text)
    browser.press("g")
    answer = box(browser, FAMILY)
    place = CHOSEN.encode("utf-16-le").index(FAMILY.encode("utf-16-le")) // 2
    chosen = f"...Texts.nodeAt({answer}, {place + 1}), ...Texts.nodeAt({answer}, {place + 4})"
    pressed = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'b', bubbles: true }))"
    browser.run(f"{answer}.focus(); getSelection().setBaseAndExtent({chosen}); {pressed}")
    assert marked(export(browser)) == [(text, 1), (FAMILY, -1)]


def test_the_keyboard_alone(page: Page) -> None:
    """Words by Ctrl+Shift+arrow, aspect, note, moved ends, another value, and done: no pointer."""
    browser = page(PAIRS, "--aspects", "fact", "style")
    browser.press("u", "j", "k")
    browser.run(f"{box(browser, 'Plain')}.focus()")
    browser.press("Home", "Ctrl+ArrowRight", "Shift+Ctrl+ArrowRight")
    browser.press("b", "1", "n")
    browser.write("too plain")
    browser.press("Enter")
    assert browser.run("document.activeElement.className") == "answer-text"
    browser.press(".", ".", ">", ">", "g", "Enter")
    assert browser.run("document.getElementById('number').value") == "2"
    rows = export(browser)
    assert marked(rows) == [("then", 1)]
    assert rows[0]["chosen_spans"][0]["aspect"] == "fact"
    notes = rows[0]["mark"]["answers"]["chosen"]["notes"]
    assert [note["note"] for note in notes] == ["too plain"]
    assert rows[0]["rejected_spans"] == [], "done: annotated, and nothing marked"
    assert len(rows) == 1, "a prompt that nobody looked at is not exported"


def test_undo_redo_and_remove(page: Page) -> None:
    browser = page(PAIRS)
    select(browser, "Plain")
    browser.press("g")
    select(browser, "second line")
    browser.press("b")
    assert len(marked(export(browser))) == 2
    browser.press("z")
    rows = export(browser)
    assert marked(rows) == [("Plain", 1)]
    assert rows[0]["rejected_spans"] is None, "neither marked nor done: not annotated"
    browser.press("Ctrl+z")
    assert browser.run("document.querySelectorAll('.marks li').length") == 0
    browser.press("Z", "Ctrl+y")
    assert len(marked(export(browser))) == 2
    browser.press("Escape", "[", "x")
    assert marked(export(browser)) == [("Plain", 1)]
    browser.click("document.querySelector('.answer-text .good')")
    browser.press("Delete")
    assert browser.run("document.querySelectorAll('.marks li').length") == 0
    browser.press("z")
    assert marked(export(browser)) == [("Plain", 1)]


def test_buttons_do_what_keys_do(page: Page) -> None:
    browser = page(PAIRS, "--aspects", "fact")
    button = lambda words: (
        f"[...document.querySelectorAll('button')].find((one) => one.textContent.startsWith({json.dumps(words)}) && one.offsetParent)"
    )
    select(browser, "second line")
    browser.click(button("Bad"))
    browser.click(button("fact"))
    browser.click(button("Good"))
    browser.click(button("Done"))
    assert browser.run("document.getElementById('counts').textContent").startswith("1 of 2 done")
    browser.click("document.getElementById('export')")
    (row,) = [json.loads(line) for line in browser.downloaded("mark.jsonl").splitlines()]
    assert marked([row]) == [("second line", 1)]
    assert row["chosen_spans"][0]["aspect"] == "fact"


def side(browser: Browser, text: str) -> str:
    """The letter of the answer with this text."""
    return str(browser.run(f"'ABCD'[{box(browser, text)}.place]"))


def test_a_preference_turns_the_pair(page: Page) -> None:
    numbers = {"margin": 2.0, "chosen_score": 9.0, "rejected_score": 3.0, "weight": 0.5}
    browser = page([{**PAIR, **numbers}])
    browser.press(side(browser, "peace"))
    select(browser, "peace")
    browser.press("g")
    (row,) = export(browser)
    assert (row["chosen"], row["rejected"]) == (REJECTED, CHOSEN)
    assert marked([row]) == [("peace", 1)]
    assert {name: row.get(name) for name in numbers} == {"margin": None, "chosen_score": 3.0, "rejected_score": 9.0, "weight": 0.5}
    assert (row["tie"], row["mark"]["preference"]["by"]) == (0, "person")
    browser.press(side(browser, "Plain"))
    (row,) = export(browser)
    assert {name: row.get(name) for name in numbers} == numbers
    browser.press("=")
    (row,) = export(browser)
    assert (row["tie"], "margin" in row, row["weight"]) == (1, False, 0.5)
    browser.press("=")
    (row,) = export(browser)
    assert (row["tie"], row["chosen"], row["mark"]["preference"]["by"]) == (0, CHOSEN, "data")


def test_four_answers_are_ranked(page: Page) -> None:
    rows = [{"prompt": "Which? ", "chosen": "It is one.", "rejected": f"It is {word}."} for word in ("two", "three", "four")]
    browser = page(rows)
    assert browser.run("document.querySelectorAll('.answer').length") == 4
    browser.press(side(browser, "three"), side(browser, "one"), "=")
    browser.press("Enter")
    order = [(row["chosen"].split()[-1], row["rejected"].split()[-1], row["tie"]) for row in export(browser)]
    assert sorted(order[:5]) == sorted(
        [("three.", "one.", 0), ("three.", "two.", 0), ("three.", "four.", 0), ("one.", "two.", 0), ("one.", "four.", 0)]
    )
    assert {*order[5][:2]} == {"two.", "four."}
    assert order[5][2] == 1


def test_suggestions_are_accepted_corrected_and_rejected(page: Page) -> None:
    spans = [{"start": 0, "end": 5, "value": -1, "aspect": "style"}, {"start": 6, "end": 11, "value": -2}, {"start": 13, "end": 17, "value": -1}]
    browser = page([{**PAIR, "chosen_spans": spans, "rejected_spans": [[0, 8, 1.0]]}])
    browser.press("Enter")
    assert browser.run("document.getElementById('number').value") == "1"
    assert "4 suggestions are undecided" in browser.run("document.getElementById('status').textContent")
    browser.click(f"[...{box(browser, 'Plain')}.querySelectorAll('.maybe-bad')][0]")
    browser.press("y")
    browser.click(f"[...{box(browser, 'Plain')}.querySelectorAll('.maybe-bad')][0]")
    browser.press("g")
    browser.click(f"[...{box(browser, 'Plain')}.querySelectorAll('.maybe-bad')][0]")
    browser.press("x", "Escape", "]", "<", ",", "Enter")
    (row,) = export(browser)
    assert marked([row]) == [("Plain", -1), ("words", 1), ("The", 1)]
    assert row["chosen_spans"][0]["aspect"] == "style"
    assert row["mark"]["done"] is True
    assert row["mark"]["answers"]["chosen"]["settled"] == {"0:5:-1": "accepted", "6:11:-2": "accepted", "13:17:-1": "rejected"}


def test_all_suggestions_at_once(page: Page) -> None:
    browser = page([{**PAIR, "chosen_spans": [[0, 5, -1.0], [6, 11, 1.0]], "rejected_spans": []}])
    browser.press("Y")
    assert marked(export(browser)) == [("Plain", -1), ("words", 1)]
    browser.press("z", "X")
    assert marked(export(browser)) == []


def test_the_work_is_kept_in_the_browser(page: Page, tmp_path: Path) -> None:
    browser = page(PAIRS)
    select(browser, "Plain")
    browser.press("b", "Enter")
    browser.click("document.getElementById('annotator')")
    browser.write("bob")
    browser.open(tmp_path / "mark.html")
    assert browser.run("document.getElementById('counts').textContent").startswith("1 of 2 done")
    assert browser.run("document.getElementById('number').value") == "2"
    rows = export(browser, "mark-bob.jsonl")
    assert marked(rows) == [("Plain", -1)]
    assert rows[0]["annotator"] == "bob"
    assert browser.run("Object.keys(localStorage).every((key) => key.startsWith('finegrain-mark:') && key.length > 70)")


def test_damaged_and_missing_storage_are_told(page: Page, tmp_path: Path) -> None:
    browser = page(PAIRS)
    warning = "document.getElementById('warning').hidden ? '' : document.getElementById('warning').textContent"
    assert browser.run(warning) == ""
    browser.run("localStorage.setItem(Object.keys(localStorage)[0], '{\"work\":')")
    browser.open(tmp_path / "mark.html")
    assert "cannot be read" in browser.run(warning)
    assert browser.run("Object.keys(localStorage).some((key) => key.endsWith(':unreadable'))")
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    script = browser.send("Page.addScriptToEvaluateOnNewDocument", source=refuse)["identifier"]
    browser.open(tmp_path / "mark.html")
    browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    assert "does not keep your work (SecurityError)" in browser.run(warning)
    select(browser, "Plain")
    browser.press("b")
    assert marked(export(browser)) == [("Plain", -1)]


def test_work_done_in_a_second_tab_is_shown(page: Page) -> None:
    browser = page(PAIRS)
    select(browser, "Plain")
    browser.press("b")
    kept = "[Object.keys(localStorage)[0], JSON.parse(Object.values(localStorage)[0])]"
    browser.run(
        f"""(() => {{
          const [key, work] = {kept};
          Object.values(work.work)[0].marks[0].value = 1;
          window.dispatchEvent(new StorageEvent("storage", {{ key, newValue: JSON.stringify(work) }}));
        }})()"""
    )
    assert "open a second time" in browser.run("document.getElementById('status').textContent")
    assert marked(export(browser)) == [("Plain", 1)]


def test_letters_can_be_switched_off(page: Page, tmp_path: Path) -> None:
    browser = page(PAIRS)
    browser.press("?")
    browser.wait("document.getElementById('letters').getBoundingClientRect().width > 0")
    browser.click("document.getElementById('letters')")
    browser.wait("!document.getElementById('letters').checked")
    browser.press("Escape")
    browser.open(tmp_path / "mark.html")
    select(browser, "Plain")
    browser.press("b")
    assert browser.run("document.querySelectorAll('.marks li').length") == 0
    browser.press("Enter")
    assert browser.run("document.getElementById('number').value") == "2"


def give_file(browser: Browser, file: Path) -> str:
    """Chooses a file for the import; returns what the page says of it."""
    document = browser.send("DOM.getDocument")["root"]["nodeId"]
    field = browser.send("DOM.querySelector", nodeId=document, selector="#import")["nodeId"]
    browser.run("document.getElementById('status').textContent = ''")
    browser.send("DOM.setFileInputFiles", nodeId=field, files=[str(file)])
    browser.wait("document.getElementById('status').textContent")
    return str(browser.run("document.getElementById('status').textContent"))


def test_an_export_is_imported_to_go_on(page: Page, tmp_path: Path) -> None:
    browser = page([{**PAIR, "chosen_spans": [[0, 5, -1.0]]}, PAIRS[1]], "--aspects", "fact")
    browser.press("X")
    for text in ("\U0001d4d0 letters", "cafe\u0301"):
        select(browser, text)
        browser.press("1")
    browser.press("n")
    browser.write("accents")
    browser.press("Enter")
    browser.press(side(browser, "peace"), "Enter")
    rows = export(browser)
    file = write_rows(tmp_path / "mark.jsonl", rows)
    browser.run("localStorage.clear()")
    browser.open(tmp_path / "mark.html")
    assert "Imported the marks of 2 answers" in give_file(browser, file)
    again = export(browser)
    for row in (*rows, *again):
        row["mark"].pop("saved")
    assert again == rows
    browser.press("z")
    assert browser.run("document.getElementById('counts').textContent").startswith("0 of 2 done")
    other = [
        {**rows[0], "rejected": "another text"},
        {**rows[0], "mark": {**rows[0]["mark"], "answers": {"answer": {"id": "77/chosen", "sha256": "0"}}}},
        {"a": 1},
    ]
    told = give_file(browser, write_rows(tmp_path / "other.jsonl", other))
    assert "1 answers have another text on this page and were left out: 0/" in told
    assert "1 answers are not on this page and were left out: 77/chosen" in told
    assert "1 lines are no rows" in told


def test_single_answers_keep_their_label_and_give_pairs_where_compared(page: Page, command: Command, tmp_path: Path) -> None:
    rows = [{"prompt": "Where? ", "completion": f"In the {word}.", "label": word == "house"} for word in ("house", "sky")]
    browser = page(rows)
    select(browser, "sky")
    browser.press("b", side(browser, "house"), "Enter")
    found = export(browser)
    assert {row["completion"]: (row["label"], len(row["spans"])) for row in found} == {"In the house.": (1, 0), "In the sky.": (0, 1)}
    done = command("check-data", "--data", write_rows(tmp_path / "export.jsonl", found))
    assert (done.result["format"], done.result["examples_left"]) == ("unpaired answers", 2)
    browser.click("document.getElementById('pairs')")
    (pair,) = [json.loads(line) for line in browser.downloaded("mark-pairs.jsonl").splitlines()]
    assert (pair["chosen"], pair["rejected"], marked([pair])) == ("In the house.", "In the sky.", [("sky", -1)])


def test_conversations_come_back_as_messages(page: Page, command: Command, tmp_path: Path) -> None:
    """Reasoning and calls are shown and not marked; spans count the contents, as spans in the columns of the data do."""
    call = [{"type": "function", "function": {"name": "look", "arguments": "{}"}}]
    turns = [
        {"role": "assistant", "content": "I look first.", "reasoning_content": "Think \U0001f600", "tool_calls": call},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "It is 42 \U0001f600 indeed."},
    ]
    row = {"prompt": [{"role": "user", "content": "What is it?"}], "completion": turns, "spans": [[2, 6, 1.0]]}
    browser = page([row])
    assert browser.run("document.querySelector('.answer details').textContent.includes('look')")
    browser.press("Y")
    select(browser, "\U0001f600 indeed")
    browser.press("b")
    (found,) = export(browser)
    bare = "I look first.\n\nTool: 42\n\nAssistant: It is 42 \U0001f600 indeed."
    assert [(bare[span["start"] : span["end"]], span["value"]) for span in found["spans"]] == [("look", 1), ("\U0001f600 indeed", -1)]
    ((_, made),) = load_text(str(write_rows(tmp_path / "export.jsonl", [found]))).rows
    assert [turn.message() for turn in made.answers["answer"].content] == turns  # type: ignore[union-attr]


def test_texts_cannot_be_changed(page: Page) -> None:
    browser = page([PAIR])
    answer = box(browser, "Plain")
    before = browser.run(f"{answer}.textContent")
    browser.click(answer)
    browser.write("typed")
    browser.press("q", "Backspace", "Ctrl+x")
    browser.send("Input.imeSetComposition", text="か", selectionStart=1, selectionEnd=1)
    browser.write("")
    assert browser.run(f"{answer}.textContent") == before


def test_hostile_text_does_nothing(page: Page) -> None:
    """No element and no script comes of a text, wherever the page writes it; hidden characters are signs, and spans still fit."""
    hostile = HOSTILE.replace("\x00", "")
    browser = page(
        [{"prompt": hostile, "chosen": hostile + "word here", "rejected": "It is."}], "--aspects", hostile[:40], "--annotator", hostile[:30]
    )
    browser.run("window.alert = () => { document.body.dataset.hacked = 'yes'; }")
    select(browser, "word here")
    browser.press("1", "n")
    browser.write(hostile)
    browser.press("Enter", "Enter")
    assert browser.run("[document.images.length, document.scripts.length, document.body.dataset.hacked || '']") == [0, 2, ""]
    assert not browser.run("/[\\u202a-\\u202e\\u200b]/.test(document.querySelector('main').innerText + document.querySelector('.dock').innerText)")
    browser.press("e")
    name = browser.wait_for_download()
    assert "/" not in name
    row = json.loads(browser.downloaded(name))
    assert marked([row]) == [("word here", -1)]
    assert row["chosen_spans"][0]["aspect"] == hostile[:40].strip()


def test_the_policy_stops_a_script_that_got_in(page: Page, chromium: Browser, tmp_path: Path) -> None:
    page([PAIR])
    planted = '<script>document.title = "hacked"</script><img src="https://example.org/x.png" onerror="document.title = \'hacked\'">'
    file = tmp_path / "planted.html"
    file.write_text((tmp_path / "mark.html").read_text().replace("<footer>", f"{planted}<footer>"))
    chromium.open(file)
    assert chromium.run("document.title") == "finegrain: mark mark"
    assert sum("Content Security Policy" in line for line in chromium.trouble()) >= 2
    chromium.events.clear()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read(page: Page, width: int, dark: bool) -> None:
    """In every state: nothing runs over the edge, and contrast is at least 4.5."""
    rows = [{**PAIRS[1], "chosen_spans": [[0, 5, -1.0], [6, 9, 1.0]]}, *[{**PAIRS[1], "rejected": f"It is {word}."} for word in ("two", "three")]]
    browser = page(rows, "--aspects", "fact", "style")
    browser.size(width, 900, dark)
    states: list[tuple[str, ...]] = [("Escape",), ("]",), ("g",), ("Y",), ("A",), ("=",), ("?",)]
    for keys in states:
        browser.press(*keys)
        ratio, where, over, wide, is_dark = browser.run(READABLE)
        assert is_dark is dark
        assert ratio >= 4.5, (keys, where, ratio)
        assert over <= 0, (keys, wide)


def test_every_control_has_a_name_and_is_reached_by_tab(page: Page) -> None:
    browser = page([{**PAIR, "chosen_spans": [[0, 5, -1.0]]}], "--aspects", "fact")
    browser.press("]")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "spinbutton", "checkbox", "progressbar"}
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(controls) > 20
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
    browser.run("document.querySelector('.skip').focus()")
    seen = set()
    for _ in range(60):
        browser.press("Tab")
        seen.add(browser.run("document.activeElement.id || document.activeElement.className || document.activeElement.textContent"))
    assert {"export", "annotator", "import", "prompt", "answer-text", "note", "aspect"} <= seen


def test_the_script_is_what_the_policy_allows() -> None:
    """No part of the script builds HTML or code from text."""
    script = "".join((TEMPLATES / name).read_text() for name in SCRIPT)
    assert [
        word
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(", "XMLHttp", "import(")
        if word in script
    ] == []

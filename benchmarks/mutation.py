"""Do the tests notice a changed formula? Mutants of the maths rooms (ROOMS below), and which of them survive.

mutmut makes the mutants (operators, comparisons, constants, conditions, arguments dropped or None, assignments, strings), finds the tests
that run each function, and forks a process per mutant from one that has imported torch. It leaves alone what stands outside functions
(defaults of settings, which tests/test_catalog.py compares with the pages) and decorated functions; statements that raise are left out here,
for messages are not maths. The run works on a copy of the last commit. It needs mutmut beside the project's own packages:

    pip install -c constraints.txt -c benchmarks/constraints-mutation.txt mutmut
    python benchmarks/mutation.py --work /tmp/mutation                     all mutants: hours (rewards, curate and evaluate took 48 minutes)
    python benchmarks/mutation.py --work /tmp/mutation --rooms rewards     one room; the results of the others stay as they are

A run that stops (--minutes) goes on where it was; one with more tests or changed functions in the last commit tries again what survived or changed.
A mutant without tests survives; one that never ends counts as killed. Survivors are listed with the reason that SURVIVORS gives, or none.
"""

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from command import flags, write
from mutation_survivors import SURVIVORS
from places import RESULTS, ROOT

ROOMS = ("ops", "credit", "objectives", "online", "rewards", "curate", "evaluate", "rounds", "weights")
SLOW_OR_ABOUT_TESTS = ["tests/laws/test_broken.py", "tests/credit/test_segmentation_benchmark.py"]
SURVIVED, WITHOUT_TESTS, NOT_TRIED = 0, 33, None
KINDS = ("mutants", "tried", "killed", "explained", "unexplained")
SHOW = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(json.dumps({name: get_diff_for_mutant(name) for name in sys.argv[1:]}))
"""


class Survivor(NamedTuple):
    """One change that no test notices."""

    file: str
    function: str
    before: str
    after: str
    reason: str
    """Why no test can or need notice it; empty where nobody has said."""


def prepare(work: Path, rooms: Sequence[str]) -> None:
    """The last commit in `work`, mutmut's settings beside it; survivors of an earlier run there are to be tried again."""
    tests = [*(f"tests/{room}" for room in rooms), "tests/laws", "tests/golden"]
    work.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--touch", "--directory", str(work)], input=archive, check=True)
    declarations = work / "src/finegrain/declarations.py"  # mutmut's copies of a method are no declarations of its class
    declarations.write_text(declarations.read_text().replace('name.startswith("_")', 'name.startswith(("_", "xǁ"))'))
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/finegrain/{room}/*.py" for room in rooms],
        "do_not_mutate_patterns": [r"^\s*raise "],
        "also_copy": ["benchmarks", "docs", "README.md", "CHANGELOG.md"],
        "pytest_add_cli_args_test_selection": [*tests, *(f"--ignore={path}" for path in SLOW_OR_ABOUT_TESTS)],
        "use_git_change_detection": False,
        "use_setproctitle": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    with (work / "pyproject.toml").open("a") as file:
        file.write("\n".join(["", "[tool.mutmut]", *lines, ""]))
    for path in metas(work, rooms):
        if not path.stat().st_size:  # a run was stopped while it wrote this
            path.unlink()
            continue
        data = json.loads(path.read_text())
        codes = data["exit_code_by_key"]
        data["exit_code_by_key"] = {name: NOT_TRIED if code in (SURVIVED, WITHOUT_TESTS) else code for name, code in codes.items()}
        path.write_text(json.dumps(data))


def metas(work: Path, rooms: Sequence[str]) -> list[Path]:
    """What mutmut knows of the mutants of each file."""
    return sorted(path for room in rooms for path in (work / "mutants/src/finegrain" / room).glob("*.meta"))


def python(work: Path, *words: str, seconds: float | None = None) -> str:
    """What a Python command in the copy prints; nothing where it was stopped after so many seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run([sys.executable, *words], cwd=work, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return ""
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def survivor(name: str, difference: str) -> Survivor:
    """The survivor of that name with its change."""
    changed = [line for line in difference.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
    before, after = ("\n".join(line[1:].strip() for line in changed if line[0] == sign) for sign in "-+")
    module, _, mangled = name.removeprefix("finegrain.").rpartition(".")
    file = module.replace(".", "/") + ".py"
    function = mangled.rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    reasons = [reason for pattern, old, new, reason in SURVIVORS if fnmatch.fnmatch(file, pattern) and known(before, after, old, new)]
    return Survivor(file, function, before, after, reasons[0] if reasons else "")


def known(before: str, after: str, old: str, new: str) -> bool:
    """Whether writing `new` for one `old` is the change."""
    places = [match.start() for match in re.finditer(re.escape(old), before)]
    return any(before[:place] + new + before[place + len(old) :] == after for place in places)


def collect(work: Path, rooms: Sequence[str]) -> tuple[dict[str, dict[str, int]], list[Survivor]]:
    """Counts by file of these rooms, and every survivor."""
    found = {path: json.loads(path.read_text())["exit_code_by_key"] for path in metas(work, rooms)}
    codes = {str(path.relative_to(work / "mutants/src/finegrain")).removesuffix(".meta"): code for path, code in found.items() if code}
    alive = [name for code in codes.values() for name, result in code.items() if result in (SURVIVED, WITHOUT_TESTS)]
    differences = json.loads(python(work, "-c", SHOW, *alive))
    survivors = [survivor(name, differences[name]) for name in alive]
    files = {}
    for file, code in codes.items():
        own = [one for one in survivors if one.file == file]
        tried, explained = sum(result is not NOT_TRIED for result in code.values()), sum(bool(one.reason) for one in own)
        counts = {"mutants": len(code), "tried": tried, "killed": tried - len(own), "explained": explained, "unexplained": len(own) - explained}
        files[file] = counts
    return files, survivors


def with_other_rooms(
    results: Path, rooms: Sequence[str], files: dict[str, dict[str, int]], survivors: list[Survivor]
) -> tuple[dict[str, dict[str, int]], list[Survivor]]:
    """The counts and survivors of this run, and those of the rooms it left out from an earlier one."""
    if not results.exists():
        return files, survivors
    before = json.loads(results.read_text())
    kept = {file: counts for file, counts in before["files"].items() if file.partition("/")[0] not in rooms}
    earlier = [Survivor(**one) for one in before["survivors"] if one["file"] in kept]
    return dict(sorted({**kept, **files}.items())), sorted([*earlier, *survivors], key=lambda one: one.file)


def markdown(files: dict[str, dict[str, int]], survivors: list[Survivor]) -> str:
    """The tables for a reader."""

    def row(name: str, counts: dict[str, int]) -> str:
        share = f"{counts['killed'] / counts['tried']:.1%}" if counts["tried"] else "—"
        untried = f"{1 - counts['tried'] / counts['mutants']:.0%}" if counts["mutants"] else "—"
        cells = counts["mutants"], counts["tried"], untried, counts["killed"], share, counts["explained"], counts["unexplained"]
        return f"| {name} | {' | '.join(map(str, cells))} |"

    def total(counts: list[dict[str, int]]) -> dict[str, int]:
        return {name: sum(one[name] for one in counts) for name in KINDS}

    everything = total(list(files.values()))
    untried = 1 - everything["tried"] / max(1, everything["mutants"])
    lines = [
        "Mutants that mutmut makes of the functions in these rooms. A count, no sample, so there is no interval; where a run was stopped,",
        "mutants of the functions with the slowest tests are the ones not tried. *Explained* survivors have a reason below why no test can or",
        "need notice them. Made by `python benchmarks/mutation.py --work FOLDER`.",
        "",
        f"{untried:.0%} of these mutants were not tried, and files added to the rooms since are absent. Survivors are those of the tests at the time",
        "of the run; unexplained ones have not been tried again with tests that were written since.",
        "",
        "| file | mutants | tried | not tried | killed | share of the tried | explained | unexplained |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(name, counts) for name, counts in files.items()),
        *(row(f"**{room}**", total([counts for name, counts in files.items() if name.startswith(f"{room}/")])) for room in ROOMS),
        row("**all**", everything),
    ]
    cell = lambda text: "`" + text.replace("\n", " ⏎ ").replace("|", "\\|").replace("`", "'") + "`"
    for title, kept in (("Unexplained", [s for s in survivors if not s.reason]), ("Explained", [s for s in survivors if s.reason])):
        lines += ["", f"## {title} survivors", "", "| where | before | after | reason |", "| --- | --- | --- | --- |"]
        lines += [f"| {s.file} {s.function} | {cell(s.before)} | {cell(s.after)} | {s.reason or '—'} |" for s in kept]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = flags(__doc__, out=RESULTS)
    parser.add_argument("--work", type=Path, required=True, help="folder for the copy; kept")
    parser.add_argument("--minutes", type=float, help="stop trying mutants after that many; without it all are tried")
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=ROOMS, help="rooms to mutate; those left out keep the results they have")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    prepare(work, arguments.rooms)
    python(work, "-m", "mutmut", "run", "--max-children", "1", seconds=60 * arguments.minutes if arguments.minutes else None)
    files, survivors = collect(work, arguments.rooms)
    files, survivors = with_other_rooms(arguments.out / "mutation.json", arguments.rooms, files, survivors)
    result = {"files": files, "survivors": [one._asdict() for one in survivors]}
    write(arguments.out, "mutation", result, markdown(files, survivors))
    mutants, tried, killed = (sum(counts[kind] for counts in files.values()) for kind in KINDS[:3])
    print(f"{tried} of {mutants} mutants tried, {killed} killed: {killed / max(1, tried):.1%}")


if __name__ == "__main__":
    main()

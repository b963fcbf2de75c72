"""What the mains of benchmarks share: flags, and the files that results go to. Standard library only, for environments without finegrain."""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path


def flags(description: str | None, *, seeds: int | None = None, out: Path | None = None) -> argparse.ArgumentParser:
    """A parser with the description's own lines, and --seeds and --out where they have a default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds)
    if out is not None:
        parser.add_argument("--out", type=Path, default=out, help="folder of the results")
    return parser


def fresh(folder: Path) -> Path:
    """The folder of a run that is not done, without what a stopped script left there."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def write(folder: Path, name: str, facts: Mapping[str, object] | Sequence[object], page: str, *, indent: int | None = 1) -> None:
    """`name`.json and `name`.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=indent, ensure_ascii=False) + "\n")
    (folder / f"{name}.md").write_text(page)

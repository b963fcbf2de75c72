"""Where benchmarks read and write, and on which processor: standard library only, cf. speed.py."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"
SMALL_LM = ROOT.parent / "shared" / "models" / "small-lm"
MATTERING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Flags of a processor on which the speed of products depends."""


def describe_processor() -> dict[str, Any]:
    """Its name and the flags that matter, as far as the system tells."""
    file, name, flags = Path("/proc/cpuinfo"), "unknown", set[str]()
    if file.exists():
        lines = dict(line.split("\t", 1) for line in file.read_text().split("\n\n")[0].splitlines() if "\t" in line)
        name, flags = lines.get("model name", ": ?").strip(": \t"), set(lines.get("flags", "").split())
    return {"processor": name, "flags": [flag for flag in MATTERING if flag in flags]}

"""Where benchmarks read and write: the data and the small model beside the project, and the results in it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"
SMALL_LM = ROOT.parent / "shared" / "models" / "small-lm"

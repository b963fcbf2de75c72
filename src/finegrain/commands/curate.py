"""Settings of `finegrain curate`."""

from dataclasses import dataclass, field
from pathlib import Path

from finegrain.checked import PositiveInt, Seed, checked
from finegrain.commands.settings import Compute
from finegrain.curate.mpo import MPO
from finegrain.curate.secrets_rm import SecretsRM
from finegrain.curate.tree_rm import TreeRM
from finegrain.data.gate.settings import Gate


@dataclass(frozen=True, kw_only=True)
@checked
class CurateSettings(Compute):
    """Repair labels by the votes of several reward models (method:secrets-rm), make new pairs from trees of responses (method:tree-rm), or split easy
    from hard pairs (method:mpo)."""

    model: str
    """Checkpoint folder or Hub name of a causal language model: what the voting models start from, or what writes the responses."""
    data: str
    """json, jsonl, csv, tsv, parquet or arrow file, a folder, or a Hub name."""
    out: Path
    """File for the rows (jsonl); the summary is written beside it. Neither may exist yet."""
    method: SecretsRM | TreeRM | MPO = field(default_factory=SecretsRM)
    micro_tokens: PositiveInt = 2048
    """Tokens of one forward pass."""
    seed: Seed = 0
    gate: Gate = field(default_factory=Gate)

    @property
    def summary(self) -> Path:
        """The file of the summary."""
        return self.out.with_suffix(".summary.json")

    def part(self, name: str) -> Path:
        """The file of one set of pairs."""
        return self.out.with_suffix(f".{name}.jsonl")

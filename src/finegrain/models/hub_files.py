"""Files of a checkpoint by name, in a folder or on the Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.utils import cached_file

from finegrain.errors import UsageError


def is_hub_name(source: str | Path) -> bool:
    """Whether a source reads like owner/name and nothing of that name is here."""
    text = str(source)
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text).exists()


def find_file(source: str | Path, name: str) -> Path | None:
    """A file of a checkpoint, downloaded once where the source is a Hub name; None where it has none of that name, or cannot be asked."""
    if not is_hub_name(source):
        file = Path(source) / name
        return file if file.exists() else None
    try:
        found = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):  # no such name, no network and no copy of it here
        return None
    return None if found is None else Path(found)


def check_folder(source: str | Path) -> None:
    """Refuse a Hub name where something is to be written beside the checkpoint."""
    if is_hub_name(source):
        raise UsageError(
            f"{source} is no folder here, and what is fitted is written beside the checkpoint; `hf download {source} --local-dir FOLDER` makes one"
        )


def with_all_files(source: str, mark: str) -> str:
    """The source; of a Hub name that has the file `mark` the folder of its copy here, with all files that lie beside it."""
    if not is_hub_name(source) or find_file(source, mark) is None:
        return source
    return str(snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))

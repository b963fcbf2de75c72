"""Files of a checkpoint by name, in a folder or on the Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.utils import cached_file

from finegrain.errors import UsageError


def is_hub_name(source: str | Path) -> bool:
    """Whether a source has the form owner/name and no local path of that name exists."""
    text = str(source)
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text).exists()


def find_file(source: str | Path, name: str) -> Path | None:
    """A file of a checkpoint, downloaded once for a Hub name; None where it has no such file, or the Hub cannot be reached."""
    if not is_hub_name(source):
        file = Path(source) / name
        return file if file.exists() else None
    try:
        found = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):  # no such name, or no network and no local copy
        return None
    return None if found is None else Path(found)


def public_name(source: str | Path) -> str:
    """What a model card calls a checkpoint: its name on the Hub, or the last part of its folder's path."""
    return str(source) if is_hub_name(source) else Path(source).name


def check_folder(source: str | Path) -> None:
    """Stops with an error on a Hub name where something is to be written beside the checkpoint."""
    if is_hub_name(source):
        raise UsageError(
            f"{source} is not a local folder, and the result is written beside the checkpoint; run `hf download {source} --local-dir FOLDER` first"
        )


def fetch_all_files(source: str, mark: str) -> str:
    """The source; for a Hub name that has the file `mark`, the local folder with all its files."""
    if not is_hub_name(source) or find_file(source, mark) is None:
        return source
    return str(snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))

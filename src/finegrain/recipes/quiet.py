"""Only our own lines on the terminal of a command: transformers is told to be quiet."""

import transformers


def quiet_transformers() -> None:
    """Switch off progress bars and warnings of transformers."""
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()

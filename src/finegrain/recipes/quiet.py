"""Only our own lines on the terminal of a command: transformers is told to be quiet."""

import transformers


def quiet_transformers() -> None:
    """Switch off progress bars and warnings of transformers."""
    transformers.utils.logging.disable_progress_bar()
    if transformers.logging.get_verbosity() != transformers.logging.ERROR:  # setting it makes every logger of the process forget its level
        transformers.logging.set_verbosity_error()

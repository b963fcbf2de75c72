"""Parts of the job behind `finegrain online`."""

"""From rows of a recognised format to examples of text, by kind: our own forms, pairs, rated, ranked, steps, tasks."""

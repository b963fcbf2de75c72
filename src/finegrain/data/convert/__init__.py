"""From rows of a recognised format to examples of text, by kind: finegrain's own forms, pairs, rated, ranked, steps, tasks."""

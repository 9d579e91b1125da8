"""From rows to what a model takes: token ids, pixels, targets. No torch in a data task."""

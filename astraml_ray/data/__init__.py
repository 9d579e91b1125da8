"""The dataset as a plan: from a prefix of objects to the micro-batches of every worker."""

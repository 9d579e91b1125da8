"""Back-translation by a user's models: a stage before the first step."""

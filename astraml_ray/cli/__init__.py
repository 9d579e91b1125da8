"""The `astraml` command. Nothing heavy is imported until a verb needs it."""

"""The control plane: who runs when, and what became of it. Its decisions are pure; torch lives in the runner alone."""

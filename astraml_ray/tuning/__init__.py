"""Sweeps: many trials of a job under Ray Tune, each an ordinary run; the best one's model is the job's."""

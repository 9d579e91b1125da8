"""Processes of Ray on this machine that are forked from one that has torch and transformers imported already."""

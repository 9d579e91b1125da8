"""Rows that training cannot take: found once, left out or refused, kept aside."""

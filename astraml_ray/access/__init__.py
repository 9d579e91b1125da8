"""Who may do what, with which defaults, limits and secrets: tokens, roles, policies, quotas. No Ray, no torch."""

"""Many runs: studies, tables of scores, scaling laws, cards of networks."""

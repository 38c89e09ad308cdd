"""Partners' statements and payouts, from the commissions that the marts compute."""

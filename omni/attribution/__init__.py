"""Which channels conversions are owed to, where no rule decides it: from the journeys themselves."""

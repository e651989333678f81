"""What must survive: plans, statuses, roll-ups, audit; SQL."""

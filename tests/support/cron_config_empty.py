"""A configuration without cron jobs."""

"""A pool of workers: ``runworker_graceful --workers N``."""

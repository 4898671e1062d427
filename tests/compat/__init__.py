"""RQ's own test suite, run over our worker classes; see ``python -m tests.compat --help``."""

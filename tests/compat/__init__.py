"""The test suites of RQ and of what stands on it, run over our worker classes; see ``python -m tests.compat --help``."""

"""The test suites of RQ and what stands on it, run over our worker classes; see ``python -m tests.compat --help``."""

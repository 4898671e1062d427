"""Build, check and rehearse a release: ``python -m tests.release``."""

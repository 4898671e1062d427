"""Real workers under a driver that breaks one thing at a random instant; see :mod:`tests.chaos.__main__`."""

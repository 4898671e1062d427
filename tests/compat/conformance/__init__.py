"""The tests of Django's Tasks, and of django-tasks-rq, over our backend: ``python -m tests.compat.conformance``."""

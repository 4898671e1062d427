"""A fleet under constant deploys and faults for as long as one likes: what grows, leaks. ``python -m tests.soak``."""

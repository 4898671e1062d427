"""Runs RQ's own test suite with our worker classes in place of RQ's, and compares: ``python -m tests.compat``.

The suite comes out of RQ's source distribution; nothing of it is kept here. Each test runs with our classes. One that
fails runs again, then with RQ's own classes: if it passes with those, ours behave in another way. Such a test has to
stand in ``differences.toml``, beside the documented behaviour that it contradicts; and what stands there has to differ.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.compat import differences, environment, suite

LINES = ("2.6.1", "3.0.0")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--rq", action="append", choices=LINES, help="only this version of RQ; may be repeated")
    parser.add_argument("--processes", type=int, default=2, help="test processes, each with a server (2)")
    parser.add_argument("--full", action="store_true", help="all tests with RQ's classes too, to print how many pass")
    parser.add_argument("tests", nargs="*", help="only these tests, by pytest's ids; what is listed is not missed then")
    options = parser.parse_args()
    return max([check(version, options) for version in options.rq or LINES])


def check(version: str, options: argparse.Namespace) -> int:
    """Run one version's suite, and say how it went.

    Returns:
        0: only what is listed differs. 1: not so.
    """
    began = time.monotonic()
    home = environment.prepare(version)
    listed = differences.of(version)
    with suite.Suite(home, options.processes) as rq:
        ours = rq.run("graceful", options.tests)
        again = sorted(ours.failed - listed.keys())
        if again:  # Some need a machine that is less busy.
            ours.update(rq.run("graceful", again))
        stock = rq.run("stock", options.tests) if options.full else suite.Results()
        if ours.failed:
            stock.update(rq.run("stock", sorted(ours.failed)))
    differ = {test for test in ours.failed if stock.outcomes.get(test) == "passed"}
    if options.tests:
        listed = {test: why for test, why in listed.items() if test in ours.outcomes}
    print(f"RQ {version}, {time.monotonic() - began:.0f} s")
    print(f"  with our classes:  {ours.summary()}")
    if options.full:
        print(f"  with RQ's classes: {stock.summary()}")
    print(f"  {len(ours.failed - differ)} fail with both, {len(differ)} only with ours, {len(listed)} are listed")
    for test in sorted(differ - listed.keys()):
        print(f"\nNOT LISTED {test}\n{ours.texts[test]}")
    for test in sorted(listed.keys() - differ):
        print(f"\nNO DIFFERENCE ANY MORE {test}: {ours.outcomes.get(test, 'there is no such test')}")
    return int(differ != listed.keys())


if __name__ == "__main__":
    sys.exit(main())

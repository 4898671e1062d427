"""``make compare``: the same faults and the same books for this package and other job systems; docs/comparison.md.

What is measured is written to ``docs/comparison.md``, and to ``docs/comparison/``: ``results.json``, ``chart.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from tests.compare.peers import PEERS, NotAvailable, Peer
from tests.compare.report import OUTPUT, PAGE, chart, table, with_results
from tests.compare.rounds import FAULTS, Broken, play, stop_idle
from tests.support.waiting import NeverHappened


def main() -> int:
    """Returns the exit code: 1 if ours has lost a job, or a peer that must be there could not be tried."""
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(prog="make compare", description=__doc__)
    parser.add_argument("--only", default=",".join(names), help=f"of {', '.join(names)}, with commas between")
    parser.add_argument("--rounds", type=int, default=4, help="of each fault (default: 4)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--side-by-side", type=int, default=3, help="how many peers are tried at one time")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    options = parser.parse_args()
    chosen = [peer for peer in PEERS if peer.name in options.only.split(",")]
    faults = options.faults.split(",")
    print(f"seed {options.seed}, {options.rounds} rounds of {', '.join(faults)}", flush=True)
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            print(text, flush=True)

    def one(peer: Peer) -> dict[str, Any]:
        return measure(peer, faults, options.rounds, options.seed, tell)

    with ThreadPoolExecutor(options.side_by_side) as pool:
        results = list(pool.map(one, chosen))
    if not options.no_write:
        results = write(results)
    print(table(results))
    missing = [result["peer"] for result in results if "not_available" in result]
    lost = [job for result in results if result["peer"] == "ours" for job in _not_done(result)]
    return 1 if lost or (missing and os.environ.get("GRACEFUL_NO_SKIP")) else 0


def write(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write what was measured; what was measured before of other peers stays. Returns all, in their order."""
    file = OUTPUT / "results.json"
    before = json.loads(file.read_text()) if file.exists() else []
    by_name = {result["peer"]: result for result in [*before, *results]}
    together = [by_name[peer.name] for peer in PEERS if peer.name in by_name]
    OUTPUT.mkdir(exist_ok=True)
    file.write_text(json.dumps(together, indent=1) + "\n")
    PAGE.write_text(with_results(PAGE.read_text(), together))
    (OUTPUT / "chart.svg").write_text(chart(together))
    return together


def _not_done(result: dict[str, Any]) -> list[str]:
    return [job for each in result["rounds"] for name in ("lost", "held", "waiting") for job in each["books"][name]]


def measure(peer: Peer, faults: list[str], rounds: int, seed: int, tell: Any) -> dict[str, Any]:
    """All rounds of one peer."""
    result: dict[str, Any] = {"peer": peer.name, "title": peer.title, "how": peer.how, "known": peer.known}
    try:
        programs = peer.install()
    except NotAvailable as error:
        tell(f"{peer.name}: not available: {error}")
        return {**result, "not_available": str(error), "rounds": [], "idle": []}
    result["version"] = peer.version(programs)
    played: list[dict[str, Any]] = []
    try:
        result["idle"] = [stop_idle(peer, programs) for _ in range(min(3, rounds))]
    except (NeverHappened, Broken) as error:
        tell(f"{peer.name}: {error}")
        return {**result, "not_available": "its worker does nothing here", "rounds": [], "idle": []}
    for number in range(rounds):
        for fault in faults:
            try:
                outcome = play(peer, programs, fault, random.Random(f"{seed}:{number}:{fault}"))
            except (NeverHappened, Broken) as error:
                tell(f"{peer.name}, {fault}: {error}")
                continue
            played.append(asdict(outcome))
            books = outcome.books
            told = ", ".join(
                f"{name} {len(getattr(books, name))}"
                for name in ("done", "doubled", "failed", "held", "lost", "waiting")
                if getattr(books, name)
            )
            tell(f"{peer.name}, {fault}: {told}; again {books.again}; hooks {books.hooks}; stop {outcome.stop}")
    return {**result, "rounds": played}


if __name__ == "__main__":
    sys.exit(main())

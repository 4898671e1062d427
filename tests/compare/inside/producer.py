"""``python producer.py APP``: enqueues jobs and tells where they stand; JSON, a request and an answer a line."""

from __future__ import annotations

import json
import sys
from importlib import import_module


def main() -> None:
    app = import_module(sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        what, argument = json.loads(line)
        if what == "enqueue":
            for job, seconds, endless in argument:
                app.enqueue(job, seconds, endless)
            print(json.dumps(len(argument)), flush=True)
        else:
            print(json.dumps({job: app.state(job) for job in argument}), flush=True)


if __name__ == "__main__":
    main()

"""Asks a worker over the Unix socket of its ``--probe-socket`` whether it is alive or ready, or what it is at.

``python -m graceful.probe live --socket /run/worker.sock`` needs no Django and no Redis: it is for probes that run a
program. ``manage.py worker_probe`` does the same.
"""

from __future__ import annotations

import argparse
import socket
import sys

QUESTIONS = ("live", "ready", "status")
SECONDS = 2.0
"""How long a worker may take to answer: one whose code holds the GIL does not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what to ask, and whom."""
    parser.add_argument("question", choices=QUESTIONS, help="live, ready, or status, which is JSON")
    parser.add_argument("--socket", required=True, metavar="PATH", help="the worker's --probe-socket")


def ask(question: str, path: str, seconds: float = SECONDS) -> tuple[bool, str]:
    """Whether the answer is yes, and its text; for ``status`` yes is an answer at all. Never raises an ``OSError``."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(seconds)
            caller.connect(path)
            caller.sendall(f"GET /{question} HTTP/1.1\r\n\r\n".encode())
            answer = b""
            while more := caller.recv(65536):
                answer += more
    except FileNotFoundError:
        return False, f"There is no socket {path}: the worker has not started or has ended, or has no --probe-socket."
    except ConnectionRefusedError:
        return False, f"No worker listens at {path}: it was killed."
    except TimeoutError:
        return False, f"The worker at {path} does not answer within {seconds:g} s."
    except OSError as error:
        return False, f"The socket {path} cannot be asked: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ")[1:2] == [b"200"], body.decode("utf-8", "replace").strip()


def main() -> int:
    """Ask, print the answer, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m graceful.probe", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args()
    yes, text = ask(options.question, options.socket)
    print(text, file=sys.stdout if yes else sys.stderr)
    return 0 if yes else 1


if __name__ == "__main__":
    sys.exit(main())

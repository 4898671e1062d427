"""``make demo-admin``: the admin over what ``make demo`` has left, until Ctrl-C."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from demo_project.history import make_history

USER = "admin"


def free_port(wanted: int) -> int:
    """``wanted`` if nobody listens there, else any other that is free.

    Raises:
        CommandError: there is none.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CommandError("no port is free")


class Command(BaseCommand):
    help = "Serves the demo's admin on the loopback address, with a user whose password it prints. PORT: which port."

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until Ctrl-C."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        call_command("migrate", verbosity=0)
        self.stdout.write(f"{make_history()} made-up shutdowns of eight weeks were added, for the page Trends.")
        password = secrets.token_urlsafe(9)
        user, _ = get_user_model().objects.get_or_create(
            username=USER, defaults={"is_staff": True, "is_superuser": True}
        )
        user.set_password(password)
        user.save()
        port = free_port(int(os.environ.get("PORT", "8000")))
        self.stdout.write(
            f"\n  http://127.0.0.1:{port}/admin/\n  user {USER}, password {password}\n  Ctrl-C ends it.\n"
        )
        self.stdout.flush()
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False, skip_checks=True)

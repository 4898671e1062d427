"""What a pool's parent says of itself."""

from __future__ import annotations

import os

import pytest

from graceful.worker.pool.place import Place
from graceful.worker.pool.signs import PoolSigns
from graceful.worker.probes.listeners import Listeners


def test_a_socket_that_was_closed_ends_no_pool(caplog: pytest.LogCaptureFixture) -> None:
    """Probes are not answered any more, which is logged once; the parent's loop goes on."""
    listeners = Listeners()
    listeners.open_port("127.0.0.1", 0, "--probe-port")
    signs = PoolSigns("pool", listeners, None)
    os.close(listeners.sockets[0].detach())
    for _ in range(2):
        signs.come_by([Place(1)], None, renewing=False)
    assert [record.getMessage() for record in caplog.records] == [
        "Probes are not answered any more: its socket was closed"
    ]
    assert signs.awaited == []


def test_nobody_wants_to_know() -> None:
    """Without probes and systemd nothing happens, and the loop need not come by for it."""
    signs = PoolSigns("", None, None)
    signs.come_by([], None, renewing=True)
    signs.reloading()
    signs.hand_on()
    signs.kept()
    signs.ended(0)
    assert (signs.awaited, signs.seconds) == ([], float("inf"))

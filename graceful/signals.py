"""Django signals of a shutdown, sent with ``send_robust``: a failing receiver does not affect it.

==================  ===============================  ===============================================
signal              sent                             arguments
==================  ===============================  ===============================================
shutdown_requested  when the loop sees the request   ``worker`` (name), ``reason``, ``signal_name``
hook_finished       after each exit hook             ``result`` (:class:`HookResult`)
shutdown_finished   when the report is sealed        ``report`` (:class:`ShutdownReport`)
==================  ===============================  ===============================================
"""

from __future__ import annotations

from django.dispatch import Signal

shutdown_requested = Signal()
hook_finished = Signal()
shutdown_finished = Signal()

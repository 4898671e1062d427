"""The test settings, with a credential provider that cannot be pickled: it has a lock."""

from __future__ import annotations

import os
import threading
from urllib.parse import urlsplit

from redis import CredentialProvider

from tests.settings import *  # noqa: F403
from tests.settings import RQ_QUEUES


class Provider(CredentialProvider):
    def __init__(self) -> None:
        self._lock = threading.Lock()

    def get_credentials(self) -> tuple[str]:
        with self._lock:
            return (os.environ["TEST_PASSWORD"],)


for queue in RQ_QUEUES.values():
    # django-rq does not heed REDIS_CLIENT_KWARGS beside a URL.
    server = urlsplit(queue.pop("URL"))
    queue |= {"HOST": server.hostname, "PORT": server.port, "REDIS_CLIENT_KWARGS": {"credential_provider": Provider()}}

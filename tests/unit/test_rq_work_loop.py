"""What our classes override and rely on in RQ is what was read: a new RQ that changes it is noticed here."""

from __future__ import annotations

import pytest
import rq

from tests.support.rq_source import METHODS, digest_of

READ = {
    "work": {
        "1ea76c81d076": "2.6.1 to 3.0.0",
    },
    "bootstrap": {
        "28097dbcb2fc": "2.6.1 to 3.0.0",
    },
    "teardown": {
        "2dabf3da13fa": "2.6.1 to 3.0.0",
    },
    "stop_scheduler": {
        "fb10caaa53a9": "2.6.1 to 3.0.0",
    },
    "unsubscribe": {
        "79d96d1a04da": "2.6.1 to 3.0.0",
    },
    "check_for_suspension": {
        "8e0e3b2344e5": "2.6.1 to 3.0.0",
    },
    "should_run_maintenance_tasks": {
        "8ad3f81b9d03": "2.6.1 to 3.0.0",
    },
    "run_maintenance_tasks": {
        "4c287cd6bc52": "2.6.1 to 2.12.0",
        "60c671d2d50a": "3.0.0",
    },
    "dequeue_job_and_maintain_ttl": {
        "b40c0f276308": "2.6.1 to 2.10.0",
        "1206c5e0aa9d": "2.11.0 to 2.12.0",
        "4c9f2cd49523": "3.0.0",
    },
    "heartbeat": {
        "ddf4147863bd": "2.6.1 to 2.8.0",
        "59c7dbf28e15": "2.9.0 to 2.12.0",
        "fec7ac115f6b": "3.0.0",
    },
    "execute_job": {
        "312316189258": "2.6.1 to 2.12.0",
        "1629191e3c74": "3.0.0",
    },
    "prepare_execution": {
        "8949ca77e05e": "2.6.1",
        "ec4b5ee7cc44": "2.7.0 to 3.0.0",
    },
    "fork_work_horse": {
        "07d56a369fee": "2.6.1 to 3.0.0",
    },
    "monitor_work_horse": {
        "8799b6533a5f": "2.6.1",
        "8ee84397c863": "2.7.0 to 2.12.0",
        "6e5cadf308b9": "3.0.0",
    },
    "wait_for_horse": {
        "7d104e2c4b53": "2.6.1 to 3.0.0",
    },
    "kill_horse": {
        "304ffb352034": "2.6.1 to 3.0.0",
    },
    "maintain_heartbeats": {
        "13da1c378a4e": "2.6.1 to 2.8.0",
        "64bbb65970ab": "2.9.0 to 2.12.0",
        "bdcc978d7365": "3.0.0",
    },
    "main_work_horse": {
        "3cc7a4fb27f3": "2.6.1 to 2.12.0",
        "dad9ccbd7966": "3.0.0",
    },
    "setup_work_horse_signals": {
        "21313e3764ee": "2.6.1 to 3.0.0",
    },
    "perform_job": {
        "b7b6580ba103": "2.6.1",
        "8306b6b30201": "2.7.0",
        "6b8b701bbe2d": "2.8.0 to 2.9.1",
        "12491b1195cd": "2.10.0",
        "09f02c3f8550": "2.11.0 to 2.12.0",
        "b385585f45d7": "3.0.0",
    },
    "prepare_job_execution": {
        "426fe310b392": "2.6.1",
        "fb4f80c063ee": "2.7.0 to 2.12.0",
        "5a74c1dc7582": "3.0.0",
    },
    "handle_execution_ended": {
        "29a9c0e7628b": "2.6.1 to 3.0.0",
    },
    "cleanup_execution": {
        "084b22206c20": "2.6.1",
        "ce2e9953ba2f": "2.7.0 to 2.12.0",
        "4f7a7fc8e7a2": "3.0.0",
    },
    "handle_job_success": {
        "ac8bf20e9999": "2.6.1",
        "f37235c00219": "2.7.0",
        "0619a7186da6": "2.8.0 to 2.12.0",
        "b4b8e622197c": "3.0.0",
    },
    "handle_job_retry": {
        "0ee57bd66117": "2.6.1 to 2.7.0",
        "050bb54f381d": "2.8.0 to 2.9.1",
        "8df8f06fc4dc": "2.10.0 to 2.12.0",
        "fd7a902803cb": "3.0.0",
    },
    "handle_job_failure": {
        "74abc3d8060b": "2.6.1 to 2.7.0",
        "87ab7ab5aada": "2.8.0 to 2.9.1",
        "e601df814447": "2.10.0 to 2.12.0",
        "f71b4d31fefb": "3.0.0",
    },
    "handle_payload": {
        "3715dfc9d59a": "2.6.1 to 3.0.0",
    },
    "register_birth": {
        "fecd6f0efc5a": "2.6.1 to 2.8.0",
        "994d81f8ee6e": "2.9.0 to 3.0.0",
    },
    "register_death": {
        "1b4afd16376a": "2.6.1 to 2.12.0",
        "69a844dca759": "3.0.0",
    },
    "SimpleWorker.execute_job": {
        "21a725c8a121": "2.6.1 to 2.12.0",
        "0225c33a33dd": "3.0.0",
    },
    "SpawnWorker.fork_work_horse": {
        "56bf81795705": "2.6.1",
        "385972440983": "2.7.0",
        "dd12f407d541": "2.8.0",
        "df0c9854f972": "2.9.0",
        "e61da21ba662": "2.9.1 to 2.12.0",
        "da72068c907c": "3.0.0",
    },
}
"""Of each method the digests that were read, and in which versions of RQ it has them. See docs/rq-work-loop.md."""


@pytest.mark.parametrize("method", METHODS)
def test_the_method_was_read(method: str) -> None:
    """A method of RQ that was changed since somebody read it fails, by its name."""
    digest = digest_of(method)
    assert digest in READ[method], (
        f"RQ {rq.VERSION} changed {method}: read it, compare docs/rq-work-loop.md, and add its digest {digest}"
    )

# ruff: noqa: E501
"""Mutants by which no invariant of the model breaks, each with the reason and the test outside the model that finds it.

The tests are in ``tests/integration``: ``test_script_guards.py``, ``test_scripts.py``, ``test_heartbeat.py`` and
``test_poison.py``. Each was seen to fail with the mutant in the place of its script.
"""

from __future__ import annotations

CLASSIFIED: dict[tuple[str, str], str] = {
    ("fetch", "true for type(reply) == 'table' and reply['err']"): (
        "the worlds' Redis loses no writes: test_a_fetch_gives_a_job_again_whose_end_redis_has_lost"
    ),
    ("fetch", "false for type(reply) == 'table' and reply['err']"): (
        "the worlds have no key of a wrong type there: test_an_intermediate_queue_of_another_type_does_not_hold_a_job"
    ),
    ("fetch", "nothing for local status = ask('HGET', prefix .. job, 'status')"): (
        "the worlds' Redis loses no writes: test_a_fetch_gives_a_job_again_whose_end_redis_has_lost"
    ),
    ("fetch", "false for held[1] == ARGV[1] and held[2] and held[3]"): (
        "no recorded call differs: test_a_repeated_fetch_gives_the_same_job"
    ),
    ("fetch", "false for mine and held[2] and unsettled(held[2], held[3], ARGV[4])"): (
        "the worlds' Redis loses no writes: test_a_fetch_gives_a_job_again_whose_end_redis_has_lost"
    ),
    ("fetch", "without redis.call('LLEN', KEYS[i + 1])"): (
        "the worlds have no key of a wrong type there: test_a_key_of_a_wrong_type_is_absent_or_stops_the_whole"
    ),
    ("fetch", "false for mine and held[2]"): (
        "differs only for a job that a user has deleted: test_a_fetch_clears_away_the_job_before"
    ),
    ("fetch", "without redis.pcall('LREM', held[2] .. ':intermediate', 0, held[3])"): (
        "no recorded call differs: test_a_fetch_clears_away_the_job_before"
    ),
    ("fetch", "without redis.call('DEL', held[2] .. ':intermediate:first_seen:' .. held[3])"): (
        "differs only for a job that a user has deleted: test_a_fetch_clears_away_the_job_before"
    ),
    ("claim", "true for type(reply) == 'table' and reply['err']"): (
        "what it returns counts in no world: test_a_claim_tells_of_interruptions"
    ),
    ("claim", "false for type(reply) == 'table' and reply['err']"): (
        "the worlds have no key of a wrong type there: test_a_claim_tells_of_interruptions"
    ),
    ("claim", "true for text and #text <= 9 and string.match(text, '^%d+$')"): (
        "the worlds have no such counter: test_a_claim_tells_of_interruptions"
    ),
    ("claim", "false for text and #text <= 9 and string.match(text, '^%d+$')"): (
        "what it returns counts in no world: test_a_claim_tells_of_interruptions"
    ),
    (
        "claim",
        "nothing for local interruptions = KEYS[4] and whole(ask('HGET', KEYS[4], 'graceful_interruptions')) or 0",
    ): ("what it returns counts in no world: test_a_claim_tells_of_interruptions"),
    (
        "claim",
        "without redis.call('DEL', (redis.call('HGET', KEYS[1], 'queue') or '') .. ':intermediate:first_seen:' .. ARGV[2])",
    ): ("fetch, requeue and deregister remove it too: test_a_claimed_job_is_under_rqs_maintenance_again"),
    ("requeue", "false for type(reply) == 'table' and reply['err']"): (
        "the worlds have no key of a wrong type there: test_a_requeue_of_a_job_that_is_gone"
    ),
    ("requeue", "false for holder ~= ARGV[6]"): (
        "differs only for jobs that a user took away: test_a_requeue_leaves_the_job_of_another_worker_alone"
    ),
    ("requeue", "false for not status"): ("no recorded call differs: test_a_requeue_of_a_job_that_is_gone"),
    ("requeue", "false for in_queue"): (
        "nobody in the worlds queues a job that is held: test_a_requeue_of_a_job_that_is_in_its_queue"
    ),
    ("requeue", "true for ARGV[2] ~= ''"): (
        "none: without an execution there is nothing under its empty name that could be removed"
    ),
    ("requeue", "without redis.call('PERSIST', KEYS[4])"): (
        "no job that is held expires in the worlds: test_a_requeued_job_does_not_expire"
    ),
    ("requeue", "false for text and #text <= 65536"): (
        "no invariant speaks of the attempts that are kept: test_each_attempt_is_kept_with_the_job"
    ),
    ("requeue", "nothing for local attempts = ask('HGET', KEYS[4], 'graceful_attempts')"): (
        "no invariant speaks of the attempts that are kept: test_each_attempt_is_kept_with_the_job"
    ),
    ("requeue", "true for ARGV[7] ~= '' and not again"): (
        "no invariant speaks of the attempts that are kept: test_whoever_fails_it_again_notes_nothing_twice"
    ),
    ("requeue", "false for ARGV[7] ~= '' and not again"): (
        "no invariant speaks of the attempts that are kept: test_each_attempt_is_kept_with_the_job"
    ),
    (
        "requeue",
        "without redis.call('HSET', KEYS[4], 'graceful_attempts', appended(attempts, ARGV[7], tonumber(ARGV[8])))",
    ): ("no invariant speaks of the attempts that are kept: test_each_attempt_is_kept_with_the_job"),
    ("requeue", "true for tonumber(ARGV[5]) >= 0"): (
        "no invariant speaks of the list of poison jobs: test_a_job_that_is_to_fail_at_once_is_no_poison"
    ),
    ("requeue", "false for tonumber(ARGV[5]) >= 0"): (
        "no invariant speaks of the list of poison jobs: test_whoever_fails_it_again_notes_nothing_twice"
    ),
    ("requeue", "without redis.pcall('ZADD', KEYS[11], redis.call('TIME')[1], ARGV[1])"): (
        "no invariant speaks of the list of poison jobs: test_whoever_fails_it_again_notes_nothing_twice"
    ),
    ("requeue", "without redis.pcall('ZREMRANGEBYRANK', KEYS[11], 0, -1 - tonumber(ARGV[9]))"): (
        "no invariant speaks of the list of poison jobs: test_the_list_has_a_bound"
    ),
    ("heartbeat", "true for now - before <= tonumber(ARGV[5])"): (
        "no invariant speaks of a worker that judges after it was frozen itself: test_redis_away_makes_nobody_overdue"
    ),
    ("deregister", "false for type(reply) == 'table' and reply['err']"): (
        "the worlds have no key of a wrong type there: test_an_intermediate_queue_of_another_type_does_not_hold_a_job"
    ),
    ("deregister", "nothing for local status = ask('HGET', prefix .. job, 'status')"): (
        "the worlds' Redis loses no writes: test_leaving_with_a_job_whose_end_redis_has_lost"
    ),
    ("deregister", "false for mine and held[1] and ARGV[4] == '' and unsettled(held[1], mine, ARGV[3])"): (
        "the worlds' Redis loses no writes: test_leaving_with_a_job_whose_end_redis_has_lost"
    ),
    ("deregister", "true for held[1] and ARGV[4] == ''"): (
        "no recorded call differs: test_leaving_clears_the_intermediate_queue"
    ),
    ("deregister", "without redis.pcall('LREM', held[1] .. ':intermediate', 0, mine)"): (
        "no recorded call differs: test_leaving_clears_the_intermediate_queue"
    ),
    (
        "deregister_from_rq",
        "false for read and type(other) == 'table' and other['worker'] == ARGV[2] and other['life'] ~= ARGV[1]",
    ): ("no two workers of a world have one name: test_a_name_that_another_worker_has_by_now"),
}
"""By script and mutation."""

"""What a million reports leave in the roll-ups, for the page of trends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DAYS, RELEASES, HOOKS = 90, 5, 20


def fill_trends() -> None:
    """Roll-ups of 90 days, 5 releases a day with 4 outcomes, 20 hooks with 2."""
    from graceful.core.histogram import BOUNDS
    from graceful.models import HookRollup, Release, ShutdownRollup

    histogram = [1000 - 50 * index for index in range(len(BOUNDS) + 1)]
    today = datetime.now(UTC).date()
    shutdowns, hooks, releases = [], [], []
    for ago in range(DAYS):
        day = today - timedelta(days=ago)
        for release in range(RELEASES):
            label = f"{day}-{release}"
            releases.append(Release(label=label, started_at=datetime.now(UTC) - timedelta(days=ago, minutes=release)))
            for outcome, count in (("clean", 2100), ("interrupted", 90), ("hooks_failed", 30), ("killed", 2)):
                row = ShutdownRollup(day=day, release=label, outcome=outcome, reason="signal", count=count)
                row.drain_histogram = row.hooks_histogram = row.total_histogram = histogram
                shutdowns.append(row)
        for hook in range(HOOKS):
            for outcome, count in (("ok", 11_000), ("timed_out", 100 - 5 * hook)):
                hooks.append(
                    HookRollup(
                        day=day,
                        name=f"shop.hooks.number_{hook}",
                        outcome=outcome,
                        count=count,
                        seconds=count / 2,
                        histogram=histogram,
                    )
                )
    Release.objects.bulk_create(releases, batch_size=500)
    ShutdownRollup.objects.bulk_create(shutdowns, batch_size=500)
    HookRollup.objects.bulk_create(hooks, batch_size=500)

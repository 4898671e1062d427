"""What is saved for the next run, and transactions of a database that may be rolled back."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from graceful.jobs import checkpoint, resumable, step
from graceful.testing import Worker

MESSAGE = r"must not be within transaction.atomic\(\), on database 'default'"


def use_loop() -> None:
    for _ in resumable(range(3)):
        pass


def use_checkpoint() -> None:
    checkpoint("here")


def use_step() -> None:
    step("one")(lambda: 1)()


@pytest.mark.parametrize("use", [use_loop, use_checkpoint, use_step])
@pytest.mark.django_db(transaction=True)
def test_within_a_transaction(use: object) -> None:
    """A loop, checkpoint or step within a transaction is an error, before anything is saved as done."""
    assert callable(use)
    worker = Worker()
    with pytest.raises(RuntimeError, match=MESSAGE), worker.run(), transaction.atomic():
        use()
    with worker.run() as run:  # It has not been noted as begun, either.
        use()
    assert run.finished


@pytest.mark.parametrize("use", [use_loop, use_checkpoint, use_step])
def test_within_the_transaction_of_a_test(use: object, db: None) -> None:
    """The transaction in which a test case runs is none of the job's."""
    assert callable(use)
    Group.objects.exists()
    with Worker().run() as run:
        use()
    assert run.finished


@pytest.mark.django_db(transaction=True)
def test_a_transaction_around_each_item() -> None:
    """A transaction around the work on an item is what is meant; a checkpoint in it is saved with the item."""
    with Worker().run() as run:
        for number in resumable(range(3)):
            with transaction.atomic():
                Group.objects.create(name=str(number))
                checkpoint(number)
    assert run.finished
    assert Group.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_outside_a_worker() -> None:
    """Nothing is saved there, so nothing is refused."""
    with transaction.atomic():
        use_loop()
        use_checkpoint()
        use_step()

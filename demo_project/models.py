"""What the jobs find out."""

from __future__ import annotations

from django.db import models


class Package(models.Model):
    """A part of Django's source that a job has read to its end."""

    name = models.CharField(max_length=100, primary_key=True)
    files = models.PositiveIntegerField()
    tokens = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.name


class IdentifierCount(models.Model):
    """How often an identifier stands in one package."""

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="identifiers")
    identifier = models.CharField(max_length=200)
    count = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["package", "identifier"], name="one_count_per_package")]

    def __str__(self) -> str:
        return f"{self.identifier}: {self.count}"


class CheckedFile(models.Model):
    """A file that the one long job has gone through, and how often: once, however often it was stopped."""

    path = models.CharField(max_length=300, primary_key=True)
    times = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.path

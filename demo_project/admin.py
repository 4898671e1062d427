"""The results, to look at."""

from __future__ import annotations

from django.contrib import admin

from demo_project.models import IdentifierCount, Package


@admin.register(Package)
class PackageAdmin(admin.ModelAdmin):
    list_display = ["name", "files", "tokens"]


@admin.register(IdentifierCount)
class IdentifierCountAdmin(admin.ModelAdmin):
    list_display = ["identifier", "package", "count"]
    list_select_related = ["package"]
    ordering = ["-count"]

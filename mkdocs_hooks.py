"""Of the documentation site: ``llms.txt``, the list of its pages for a language model (https://llmstxt.org)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

navigation: list[Any] = []
"""Of the English site; its pages have no titles before they are read."""


def on_nav(nav: Any, config: Any, files: Any) -> Any:
    if config.theme["language"] == "en":
        navigation[:] = nav.items
    return nav


def on_env(env: Any, config: Any, files: Any) -> Any:
    """Write the list, once the titles are known; each language is a build of its own, and the list is in English."""
    if config.theme["language"] == "en":
        lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", *listed(navigation)]
        Path(config.site_dir).mkdir(parents=True, exist_ok=True)
        (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return env


def listed(items: list[Any], parents: tuple[str, ...] = ()) -> list[str]:
    """A line for each page, and a heading for each section that has pages of its own."""
    pages = [f"- [{item.title}]({item.url or './'})" for item in items if item.is_page]
    lines = ["## " + ": ".join(parents), ""] if pages and parents else []
    lines += [*pages, ""] if pages else []
    for item in items:
        if item.is_section:
            lines += listed(item.children, (*parents, item.title))
    return lines

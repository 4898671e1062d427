"""Of the documentation site: the documents at the top of the repository as pages, and ``llms.txt``, the list of the
pages for a language model (https://llmstxt.org).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

TOP = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Documents beside ``docs/``, and their pages."""
navigation: list[Any] = []
"""Of the English site; its pages have no titles before they are read."""


@event_priority(-100)  # After the translations' plugin, which knows files of the disk alone.
def on_files(files: Any, config: Any) -> Any:
    """Add them; links to what is no page of the site lose their target."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        page = TOP.get(target) or target.removeprefix("docs/")
        return f"[{text}]({page})" if target in TOP or target.startswith("docs/") else text

    for name, page in TOP.items():
        text = (Path(config.config_file_path).parent / name).read_text(encoding="utf-8")
        content = re.sub(r"\[([^\]]+)\]\(([^)#:]+)\)", link, text)
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """What leads to such a document from a page of ``docs/`` leads to its page."""
    for name, target in TOP.items():
        markdown = markdown.replace(f"](../{name})", f"]({target})")
    return markdown


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

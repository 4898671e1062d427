"""Of the documentation site: ``llms.txt``, the list of its pages for a language model (https://llmstxt.org)."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_env(env: Any, config: Any, files: Any) -> Any:
    """Write the list, once the titles are known; each language is a build of its own, and the list is in English."""
    if config.theme["language"] != "en":
        return env
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for page in files.documentation_pages():
        if page.page is not None:
            lines.append(f"- [{page.page.title}]({page.url or './'})")
    Path(config.site_dir).mkdir(parents=True, exist_ok=True)
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return env

"""What a page does wrong: to axe, to the keyboard, in its size, in the console, and towards other hosts."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from selenium.webdriver import ActionChains, Chrome, Keys

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
NOT_OURS = {
    ".breadcrumbs": "Django's links there differ from the text by colour only, at 1.4:1 (link-in-text-block)",
    "#toolbar": "Django's search box has only its help text as a label, and 'Show all' differs by colour only",
}
"""What is Django's own and not looked at, and why."""
RUN = """
const done = arguments[arguments.length - 1];
axe.run({exclude: arguments[0].map(each => [each])}, {resultTypes: ['violations']})
  .then(found => done(found.violations.map(each =>
    `${each.id}: ${each.nodes.map(node => node.html.slice(0, 160) + ' ' +
      (node.any[0] ? node.any[0].message : '')).slice(0, 4).join(' | ')}`)))
  .catch(error => done([String(error)]));
"""
WATCH = """
const style = each => (each = getComputedStyle(each), [each.outlineStyle, each.boxShadow, each.borderColor, each.color,
  each.backgroundColor, each.textDecorationLine].join());
const stops = new Map([...document.querySelectorAll(
    '#content a[href]:not(.sortremove), #content summary, #content button, #content input, #content select')]
  .filter(each => each.checkVisibility() && !each.disabled && each.type !== 'hidden' && each.tabIndex >= 0)
  .map(each => [each, style(each)]));
window.unreached = new Set(stops.keys());
window.unseen = [];
document.addEventListener('focusin', ({target}) => {
  if (window.unreached.delete(target) && style(target) === stops.get(target)) window.unseen.push(target);
});
document.activeElement.blur();
return stops.size;
"""
FOUND = """
const html = each => each.outerHTML.slice(0, 120);
return [...[...window.unreached].map(each => 'not reached by Tab: ' + html(each)),
        ...window.unseen.map(each => 'its focus is not visible: ' + html(each))];
"""
WIDE = """
const all = document.documentElement, edge = window.innerWidth;
if (all.scrollWidth <= edge) return [];
const out = [...document.body.querySelectorAll('*')].filter(each => each.getBoundingClientRect().right > edge);
const last = out.filter(each => !out.some(other => other !== each && each.contains(other)));
return [`${all.scrollWidth} px in a window of ${edge}`,
        ...[...document.body.querySelectorAll('*')].filter(each => each.scrollWidth > each.clientWidth + 1 &&
            getComputedStyle(each).overflowX === 'visible' && each.clientWidth > 0).slice(-3)
          .map(each => `its text sticks out: ${each.outerHTML.slice(0, 90)}`),
        ...last.slice(0, 8).map(each => `too wide: ${each.parentElement.className} > ${each.outerHTML.slice(0, 60)}`)];
"""
BEFORE_OURS = 60
"""Stops in Django's header and sidebar, and scrolling regions, at most."""


def violations(browser: Chrome) -> list[str]:
    """What axe finds, a line a rule."""
    browser.execute_script(AXE)
    found: list[str] = browser.execute_async_script(RUN, list(NOT_OURS))
    return found


def keyboard(browser: Chrome) -> list[str]:
    """What the Tab key does not reach, and what does not show that it has the focus."""
    stops = browser.execute_script(WATCH)
    ActionChains(browser).send_keys(Keys.TAB * (stops + BEFORE_OURS)).perform()
    found: list[str] = browser.execute_script(FOUND)
    return found


def too_wide(browser: Chrome) -> list[str]:
    """The innermost parts that push the page out of the window."""
    found: list[str] = browser.execute_script(WIDE)
    return found


def console(browser: Chrome) -> list[str]:
    """Errors in the console since the last call; there is no favicon on a test server."""
    log: Any = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [each["message"] for each in log if each["level"] == "SEVERE" and "favicon" not in each["message"]]


def requests_outside(browser: Chrome, site: str) -> list[str]:
    """Addresses beyond the site that were asked for since the last call."""
    found = []
    log: Any = browser.get_log("performance")  # type: ignore[no-untyped-call]
    for entry in log:
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address: str = message["params"]["request"]["url"]
            if not address.startswith((site, "data:", "about:", "chrome:")):
                found.append(address)
    return found

/* While a deploy is under way, replaces the page's main part with a fresh one; without JavaScript the page has a
   refresh of its own. Ends when the page says that all is over. */
"use strict";
(() => {
  const ID = "graceful-deploy";
  const PAUSE_MS = 3000;

  const later = () => {
    const shown = document.getElementById(ID);
    if (shown && shown.dataset.live) {
      window.setTimeout(refresh, PAUSE_MS);
    }
  };

  const refresh = async () => {
    try {
      const response = await fetch(window.location.href, { credentials: "same-origin", cache: "no-store" });
      // Logged out, or an error: the page as it is says more.
      if (response.ok && !response.redirected) {
        const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById(ID);
        const shown = document.getElementById(ID);
        if (fresh && shown) {
          const focused = document.activeElement;
          // Whoever reads a stack, or is at a link with the keyboard, is not to be torn from it.
          if (!focused || !shown.contains(focused)) {
            shown.replaceWith(document.adoptNode(fresh));
          }
        }
      }
    } catch (error) {
      // Offline for a moment, as may be in a deploy: the next try comes.
    }
    later();
  };

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", later);
  } else {
    later();
  }
})();

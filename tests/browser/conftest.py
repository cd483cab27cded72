"""Settings of the tests in Chromium."""

from __future__ import annotations

import os

# ``make check-docs`` builds the site and names its folder.
collect_ignore = [] if "LAMINA_SITE" in os.environ else ["test_site.py"]

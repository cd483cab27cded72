"""``lamina`` with few finals and short heartbeats, for tests of ``lamina tune``."""

from __future__ import annotations

import sys

from lamina.cli import main
from lamina.studies import finals, trials

if __name__ == "__main__":
    finals.PLANS = ((2, 2),)
    trials.HEARTBEAT_SECONDS, trials.GRACE_SECONDS = 1, 3
    sys.exit(main())

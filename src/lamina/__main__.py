"""``python -m lamina``: the same as ``lamina``."""

import sys

from lamina.cli import main

sys.exit(main())

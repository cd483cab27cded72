"""Run ``lamina`` as ``python -m lamina``."""

import sys

from lamina.cli import main

status = main()
# After Ctrl-C within an exec() of a string, as while a dataclass is defined, python -m would end
# itself by SIGINT, although the interrupt was handled. The next exec() of a string prevents that.
exec("")  # noqa: S102
sys.exit(status)

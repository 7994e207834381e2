"""`python -m zhero` is `zhero`."""

import sys

from .cli.main import main

sys.exit(main())

"""`python -m preceptor` is `preceptor`."""

import sys

from preceptor.cli import main

sys.exit(main())

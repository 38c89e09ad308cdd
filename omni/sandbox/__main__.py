"""`python -m omni.sandbox`: serve a company's data as its vendors would."""

from __future__ import annotations

import argparse
import sys
from datetime import date

from omni.errors import ConfigError
from omni.sandbox.process import CONFIG_EXIT, serve


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m omni.sandbox", description=__doc__)
    parser.add_argument("--company", default="demo", help="demo (bundled) or olist (real data set)")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail, e.g. 0.02")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    parser.add_argument("--until", type=date.fromisoformat, help="last day that has happened, YYYY-MM-DD")
    parser.add_argument(
        "--plan", default="enterprise", help="Shopify plan: standard, advanced, plus, enterprise"
    )
    parser.add_argument("--hubspot-per-10s", type=int, default=190, help="HubSpot requests in ten seconds")
    parser.add_argument("--end-with-input", action="store_true", help="stop when standard input ends")
    return parser.parse_args()


def main() -> int:
    """Serve until interrupted; 2 when something is wrong as configured."""
    try:
        serve(**vars(_arguments()))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return CONFIG_EXIT
    return 0


if __name__ == "__main__":
    sys.exit(main())

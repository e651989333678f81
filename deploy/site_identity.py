"""Make one site's identity by hand, until enrolment exists: certificate, key, CA and planner key, ready to be copied.

    deploy/site_identity.py falcon-1 --controller-state /var/lib/gridpivot/controller --out falcon-1

The directory it writes is what the agent expects in its state directory. It holds a secret: copy it, then delete it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gridpivot.link.certificates import issue_site, load_authority
from gridpivot.plan import key_id

SITE = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


def make_site_identity(state: Path, site: str, out: Path, *, fleet: str, days: int) -> None:
    """Write tls/{ca.crt,site.crt,site.key} and planner/<key_id>.pub under `out`; raises ValueError or OSError."""
    if not SITE.match(site):
        raise ValueError(f"site {site!r}: use small letters, digits and hyphens, as in controller.toml")
    authority = load_authority((state / "tls/ca.key").read_bytes(), (state / "tls/ca.crt").read_bytes())
    planner_pem = (state / "planner.pub").read_bytes()
    planner = serialization.load_pem_public_key(planner_pem)
    if not isinstance(planner, Ed25519PublicKey):
        raise ValueError(f"{state / 'planner.pub'}: not an Ed25519 key")
    own = issue_site(authority, fleet, site, dt.datetime.now(dt.UTC), days)
    files = {
        "tls/ca.crt": authority.certificate_pem,
        "tls/site.crt": own.chain_pem,
        "tls/site.key": own.key_pem,
        f"planner/{key_id(planner.public_bytes_raw())}.pub": planner_pem,
    }
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made unreadable for others at once, and never over a file that is there.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def main() -> int:
    """Exit code 0, or 1 with one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("site", help="name as in controller.toml")
    parser.add_argument("--controller-state", type=Path, default=Path("/var/lib/gridpivot/controller"))
    parser.add_argument("--out", type=Path, required=True, help="new directory")
    parser.add_argument("--fleet", default="gridpivot", help="as given to gridpivot-controller init")
    parser.add_argument("--days", type=int, default=90, help="validity of the certificate; default 90")
    given = parser.parse_args()
    try:
        make_site_identity(given.controller_state, given.site, given.out, fleet=given.fleet, days=given.days)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{given.out}: identity of {given.site}, good for {given.days} days\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

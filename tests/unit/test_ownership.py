"""What root writes for a service, the service can read."""

import os
from pathlib import Path

import pytest

from gridpivot.ownership import give_to_owner

pytestmark = pytest.mark.unit


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: only root can give files away")
def test_files_and_links_go_to_the_owner_of_the_directory_and_nothing_outside_does(tmp_path: Path) -> None:
    state, outside = tmp_path / "state", tmp_path / "outside"
    (state / "tls").mkdir(parents=True)
    outside.write_text("not ours")
    (state / "tls" / "site.key").write_text("secret")
    (state / "tls" / "link").symlink_to(outside)
    os.chown(state, 65534, 65534)
    give_to_owner(state, (state / "tls", state / "absent"))
    assert (state / "tls" / "site.key").stat().st_uid == (state / "tls" / "link").lstat().st_uid == 65534
    assert outside.stat().st_uid == 0

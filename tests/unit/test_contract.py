"""What pyproject promises of grpcio and protobuf is what the generated stubs demand."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]


def lower_bound(package: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = [d for d in project["dependencies"] if re.match(rf"{package}\b", d)]
    match = re.search(r">=([0-9.]+)", found)
    assert match is not None
    return match.group(1)


def stubs(pattern: str) -> list[Path]:
    found = sorted((ROOT / "gridpivot" / "v1").glob(pattern))
    assert found
    return found


def test_grpcio_lower_bound_is_the_generators() -> None:
    versions = {
        re.search(r"GRPC_GENERATED_VERSION = '([0-9.]+)'", p.read_text()).group(1) for p in stubs("*_pb2_grpc.py")
    }
    assert versions == {lower_bound("grpcio")}


def test_protobuf_lower_bound_is_the_generators() -> None:
    versions = {re.search(r"# Protobuf Python Version: ([0-9.]+)", p.read_text()).group(1) for p in stubs("*_pb2.py")}
    assert versions == {lower_bound("protobuf")}


def test_every_field_of_the_contract_is_described() -> None:
    for proto in sorted((ROOT / "protos").rglob("*.proto")):
        lines = [line.strip() for line in proto.read_text().splitlines()]
        for before, line in pairwise(lines):
            if re.match(r"^(repeated |optional )?[\w.<>, ]+ \w+ = \d+;", line):
                assert before.startswith("//"), f"{proto.name}: {line}"

"""Fail when gridpivot/v1 is not what protos/ generates: run by `make lint`, mended by `make proto`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Exit code 1 and one line per stub that drifted."""
    root = Path(__file__).resolve().parent.parent
    protos = sorted(str(p.relative_to(root / "protos")) for p in (root / "protos").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as out:
        outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root / 'protos'}", *outputs, *protos]
        # protoc looks for the mypy plugins on PATH; they lie beside this interpreter.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(f"protoc failed: {done.stderr.strip()}\n")
            return 1
        fresh = {p.relative_to(out): p.read_bytes() for p in Path(out).rglob("*.py*")}
    kept = {
        p.relative_to(root): p.read_bytes()
        for p in (root / "gridpivot" / "v1").glob("*.py*")
        if p.name != "__init__.py"
    }
    drifted = sorted({str(p) for p in fresh.keys() | kept.keys() if fresh.get(p) != kept.get(p)})
    for path in drifted:
        sys.stderr.write(f"{path}: differs from protos/; run `make proto` and commit the result\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Make .venv with one extra of gridpivot: uv where it can be had, else pip; always under constraints.txt.
set -euo pipefail
extra="$1"
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gridpivot needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "cannot make .venv; on Debian: apt install python3-venv" >&2; exit 2; }
want=".[$extra]"
# Without a C compiler the stand-in NVML library is built by zig, which PyPI carries.
compiler=()
if [ "$extra" != dev ] && ! command -v cc >/dev/null; then compiler=(ziglang); fi
echo "installing gridpivot[$extra] into .venv" >&2
if .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv 2>/dev/null && .venv/bin/uv --version >/dev/null 2>&1; then
  .venv/bin/uv pip install --quiet --python .venv/bin/python -c constraints.txt -e "$want" "${compiler[@]}"
else
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$want" "${compiler[@]}"
fi

#!/usr/bin/env bash
# Debian packages that some tests need on CI: Prometheus with promtool, systemd-analyze. Users' machines without them skip those tests.
set -euo pipefail
command -v promtool >/dev/null && command -v systemd-analyze >/dev/null && exit 0
command -v apt-get >/dev/null || { echo "no apt-get here: install prometheus (with promtool) and systemd by hand" >&2; exit 0; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends prometheus systemd

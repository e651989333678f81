#!/usr/bin/env bash
# Debian packages that some tests need on CI: Prometheus with promtool, systemd-analyze, Slurm's daemons and tools, kubectl. Users' machines without
# them skip those tests.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
packages=()
command -v promtool >/dev/null || packages+=(prometheus)
command -v systemd-analyze >/dev/null || packages+=(systemd)
command -v slurmctld >/dev/null || packages+=(slurmctld)
command -v slurmd >/dev/null || packages+=(slurmd)
command -v sinfo >/dev/null && command -v sbatch >/dev/null || packages+=(slurm-client)
[ -n "$(find /usr/lib -path '*slurm*/auth_none.so' -print -quit 2>/dev/null)" ] || packages+=(slurm-wlm-basic-plugins)
command -v kubectl >/dev/null || packages+=(kubernetes-client)
[ ${#packages[@]} -eq 0 ] && exit 0
command -v apt-get >/dev/null || { echo "no apt-get here: install by hand: ${packages[*]}" >&2; exit 0; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${packages[@]}"

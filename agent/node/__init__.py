"""A GPU host's own process (`role = "node"`): reads NVML, reports to the site's agent, holds the limits it is given."""

"""The process in the middle: sees all sites, prices every megawatt, sends each site a plan."""

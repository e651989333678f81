"""The process at a site: reads devices, holds the site to its plan, reports; works without the controller."""

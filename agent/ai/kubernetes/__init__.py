"""Kubernetes: a namespace and the nodes of one label as a pool of AI work, over the plain REST interface."""

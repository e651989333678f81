"""An API server that does not exist: nodes, pods, evictions, Jobs and Kueue, as far as the agent and kubectl ask for them."""

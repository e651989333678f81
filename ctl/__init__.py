"""The operator's command `gridpivot`: a client of the controller's API."""

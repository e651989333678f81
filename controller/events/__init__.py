"""Grid events and overrides: windows over sites."""

"""A host's management controller (BMC) over Redfish: power at the wall, and off and on when a person asks."""

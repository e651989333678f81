"""A BMC that does not exist, over Redfish."""

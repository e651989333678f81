"""What decisions were worth: fleets from a file, scenarios from past prices, policies, settlement and regret."""

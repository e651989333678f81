"""Both ends of the session protocol: lanes, acks, resume, heartbeat as pure state machines; credentials; coding."""

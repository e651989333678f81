"""Who may speak: the controller's own keys, enrolment of sites, revocation, operators and their roles."""

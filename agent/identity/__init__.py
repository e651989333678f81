"""This site's identity: key, certificate, CA, planner keys; enrolment, renewal, and the way back after expiry."""

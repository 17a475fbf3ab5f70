"""The coordinator's programs: commands, enrolment and certificates, the proxy before SuperLink, the round log."""

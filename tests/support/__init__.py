"""What the tests share: real services on loopback ports, and the rule that in CI nothing may be skipped."""

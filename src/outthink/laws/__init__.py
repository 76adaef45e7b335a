"""Laws of test-time compute: how accuracy grows with what is spent."""

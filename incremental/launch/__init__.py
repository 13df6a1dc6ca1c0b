"""Many runs on one cache."""

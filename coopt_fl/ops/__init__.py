"""Running a deployment: certificates, keys, and what a host can do."""

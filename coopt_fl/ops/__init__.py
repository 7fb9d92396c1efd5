"""Setting up: certificates and keys, ``coopt doctor``, and a configuration that fits images."""

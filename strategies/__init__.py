"""The platform's side: a Flower strategy and what it decides."""

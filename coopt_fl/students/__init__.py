"""Students: models trained on an optimized dataset, and the probe that judges them."""

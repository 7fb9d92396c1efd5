"""The platform's decisions: arrays and plain records in, a decision out. No Flower, no files."""

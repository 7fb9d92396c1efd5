"""The platform's decisions: from arrays and plain records, without Flower and files."""

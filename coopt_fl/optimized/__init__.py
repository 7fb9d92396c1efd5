"""The optimized dataset on disk: blocks, publication, reading, verification."""

"""The optimized dataset on disk: state, blocks, publication, reading, verification."""

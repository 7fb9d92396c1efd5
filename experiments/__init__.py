"""One file per table or figure: a few lines over the library, and results with provenance."""

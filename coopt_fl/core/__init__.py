"""The lowest layer: errors, files, seeds, devices, progress."""

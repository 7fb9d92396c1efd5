"""Augmentation of a batch on the device, with random numbers of its own for each sample."""

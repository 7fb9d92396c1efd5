"""Augmentation of batches on the device, with separate random numbers for each sample."""

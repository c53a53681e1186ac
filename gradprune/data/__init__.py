"""Data: data sets, files of data, sequences to learn, augmentation."""

"""What training reads: items, episodes, augmentation, the cache of pixels, the datamodule."""

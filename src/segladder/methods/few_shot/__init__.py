"""Methods that learn a new class from K images with masks: a file each."""

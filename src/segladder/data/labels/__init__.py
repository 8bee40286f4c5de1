"""What may be seen of the labels: their kinds, the labelled images, prices."""

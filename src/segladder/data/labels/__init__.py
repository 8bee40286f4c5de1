"""What may be seen of the labels: kinds of label, hidden classes, the labelled images, prices."""

"""Anyone's annotated images, as other programs leave them, into the folder that `data=folder` reads."""

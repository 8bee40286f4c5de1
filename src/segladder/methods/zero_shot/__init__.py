"""Methods that name classes they have no labels of, by way of semantic vectors: a file each."""

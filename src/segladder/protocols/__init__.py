"""What is measured, on which items, and how: a protocol turns a method and a data set into a Result."""

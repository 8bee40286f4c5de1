"""A file for each way in which annotations come; it is found here by being here."""

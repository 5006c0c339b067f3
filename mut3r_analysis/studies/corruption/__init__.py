"""Moving content in what is read and in what is written."""

"""The project's notebooks: executed with parameters, and the page that leads through them."""

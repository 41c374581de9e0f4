"""The one way out: requests to URLs that clients name, to public addresses alone. Knows the settings and the errors."""

"""The front end: from requests to the registry, and from its objects to answers."""

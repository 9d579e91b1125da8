"""The HTTP API: thin routes on Ray Serve, one error handler. No torch."""

"""The HTTP server's application: what is asked and answered over HTTP."""

"""Serving on a Ray cluster: replicas behind Ray Serve's proxy, and at endpoints of their own."""

"""Shared by both servers: access, bodies, and the socket."""

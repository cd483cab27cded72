"""Shared by both servers: access, bodies, the socket, and a process for torch."""

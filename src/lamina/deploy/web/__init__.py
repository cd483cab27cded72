"""What both servers of the package share: access, bodies, the socket, and a process for torch."""

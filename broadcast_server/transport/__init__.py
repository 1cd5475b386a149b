"""Sockets and time: connections, TLS, proxies, deadlines. It knows no hub, room or message."""

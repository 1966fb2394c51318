"""Who reaches whom: ports, sockets, and the two small proxies of students' containers."""

"""What emulated containers answer.

`answers` decides (pure: a request and who is asked, to a response); `http1` and `http2` read and write the wire;
`tcp` tells protocols apart on one port; `udp` answers datagrams from the address that was asked.
"""

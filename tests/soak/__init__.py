"""The soak: a hub that a thousand clients of all kinds use and abuse at random, and a strict check.

``python -m tests.soak --help``; ``make soak`` runs it. One process is the hub, the command itself;
the other one drives all clients from one epoll loop, so that they cost little beside it.

- ``order``: what must hold, as a model of a room's messages and of one reader's place in them
- ``wire``: WebSocket frames, HTTP answers and server-sent events as a client reads them; payloads
- ``peers``: one connection of the driver, whatever it speaks
- ``members``: those who join rooms: plain, JSON and server-sent events; ``senders``: what they say
- ``abusers``: publishers over HTTP, and those who come to make trouble
- ``driver``: the loop, the timers, the counts; ``hub``: the hub's process and what it takes
- ``run``: from the first join to the last check
"""

// The same peer as in peers.py, made of Node's `ws` with its defaults: node peer.js URL
"use strict";

const WebSocket = require("ws");

const peer = new WebSocket(process.argv[2], { handshakeTimeout: 20000 });

peer.on("open", () => peer.send("joined"));
peer.on("message", (data, isBinary) => {
  if (!isBinary && data.toString() === "leave") {
    peer.close(1000);
  } else {
    peer.send(data, { binary: isBinary });
  }
});
peer.on("close", (code) => console.log(code));
peer.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});

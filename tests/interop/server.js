// The same server as in server.py, made of Node's `ws`, which takes the first subprotocol offered.
"use strict";

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });

server.on("listening", () => console.log(server.address().port));
server.on("connection", (peer, request) => {
  const hello = [
    ["path", request.url.replace(/&.*/, "")],
    ["protocol", peer.protocol || null],
    ["origin", request.headers.origin || null],
    ["x-a", request.headers["x-a"] || null],
  ];
  const members = hello.map((pair) => pair.map((part) => JSON.stringify(part)).join(": "));
  peer.send(`{${members.join(", ")}}`);
  const code = /close=(\d+)/.exec(request.url);
  if (code) {
    peer.close(Number(code[1]));
  }
  peer.on("message", (data, isBinary) => peer.send(data, { binary: isBinary }));
});

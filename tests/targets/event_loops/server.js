// Routes that keep what is known of each request, in buffers of their own: V8's heap has no part in them.
// Prints `ready PORT` and ends with its input.
"use strict";
const http = require("node:http");
const { setTimeout: pause } = require("node:timers/promises");

const KEPT_BYTES = 20_000;
const HELD = 50;
const HELD_BYTES = 5_000;
const kept = [];
const held = [];

const routes = {
  "/leak": () => kept.push(Buffer.allocUnsafeSlow(KEPT_BYTES)),
  // Freed by the collector, some time after fifty more.
  "/some": () => {
    held.push(Buffer.allocUnsafeSlow(HELD_BYTES));
    if (held.length > HELD) held.shift();
  },
  "/clean": () => Buffer.from("x".repeat(100)),
};

const server = http.createServer(async (request, response) => {
  await pause(1);
  const serve = routes[request.url];
  serve?.();
  await pause(1);
  response.statusCode = serve ? 200 : 404;
  if (request.url === "/clean") {
    // Of unknown length: chunks.
    response.write("a");
    response.end("b");
  } else {
    response.end("done");
  }
});
server.listen(0, "127.0.0.1", () => console.log(`ready ${server.address().port}`));
process.stdin.on("end", () => process.exit()).resume();
